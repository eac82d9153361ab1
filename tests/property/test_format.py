# SPDX-License-Identifier: Apache-2.0
"""Whatever is legal is read as it was written; whatever is not is refused by an error of the family and by nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deltaimg.format.framing import HEADER_BYTES
from deltaimg.format.map import HEAD as MAP_HEAD
from deltaimg.format.pack import TRAILER, TRAILER_MAGIC
from deltaimg.format.record import RECORD_HEADER_BYTES
from tests.fuzz.harness import exercise, fingerprint
from tests.golden import forge
from tests.golden.kinds import KINDS, PackContent
from tests.property.format_strategies import CONTENTS, EDGES, U8, U16, U32, U64, damaged

QUICK = settings(max_examples=80, deadline=2000, suppress_health_check=[HealthCheck.too_slow])
"""The deadline, in milliseconds, is what keeps any object from taking unbounded time."""
ALL = pytest.mark.parametrize("kind", KINDS)
MIXED = st.one_of(EDGES, st.integers(0, 5))


def name_of(content: Any) -> str:
    return getattr(content, "object_name", "x")


@ALL
@QUICK
@given(data=st.data())
def test_legal_content_of_every_kind_is_read_as_written(kind, data):
    content = data.draw(CONTENTS[kind])
    found = KINDS[kind].parse(KINDS[kind].build(content), name_of(content))
    if isinstance(content, PackContent):
        assert found.records == content.records
    else:
        assert fingerprint(found) == fingerprint(content)


@ALL
@QUICK
@given(data=st.data())
def test_damaged_bytes_mean_the_same_or_are_refused(kind, data):
    content = data.draw(CONTENTS[kind])
    written = KINDS[kind].build(content)
    found = exercise(kind, data.draw(damaged(written)), name_of(content))
    if found is not None and not isinstance(content, PackContent):
        assert fingerprint(found) == fingerprint(content)


@ALL
@QUICK
@given(data=st.data())
def test_damaged_bodies_under_right_checksums_are_read_soundly_or_refused(kind, data):
    content = data.draw(CONTENTS[kind])
    body = forge.body_of(KINDS[kind].build(content))
    exercise(kind, forge.forge_object(KINDS[kind].kind, data.draw(damaged(body))), name_of(content))


@ALL
@QUICK
@given(
    header=st.fixed_dictionaries(
        {}, optional={"version": U16, "incompatible": U16, "compatible": U16, "reserved": U16, "body_bytes": U64}
    ),
    data=st.data(),
)
def test_headers_that_lie_under_right_checksums_are_refused(kind, header, data):
    content = data.draw(CONTENTS[kind])
    exercise(kind, forge.forge_from(KINDS[kind].build(content), **header), name_of(content))


# -- bodies whose checksums are right and whose numbers are not --------------------------------------------------------


@QUICK
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "pack": MIXED, "offset": MIXED, "payload_bytes": MIXED, "signature": MIXED, "first_digest": MIXED,
                "slots": MIXED, "encoding": U8, "block_shift": U8,
            },
        ),
        max_size=4,
    ),
    head=st.fixed_dictionaries(
        {}, optional={"pack_count": MIXED, "signature_count": MIXED, "entry_count": MIXED, "zero": st.integers(0, 1)}
    ),
    extra=st.binary(max_size=70),
)  # fmt: skip
def test_indexes_that_lie_about_counts_places_and_lengths_are_refused(rows, head, extra):
    limits = {"slots": 2**16 - 1, "encoding": 255, "block_shift": 255}
    rows = [{field: min(value, limits.get(field, 2**32 - 1)) for field, value in row.items()} for row in rows]
    head = {field: min(value, 2**32 - 1) for field, value in head.items()}
    exercise("index", forge.forge_index(entries=rows, extra=extra, **head))


@QUICK
@given(
    slots=st.lists(st.integers(0, 40), max_size=4),
    digests=st.none() | st.integers(0, 90),
    head=st.fixed_dictionaries({}, optional={"record_count": MIXED, "slot_count": MIXED, "zero": MIXED}),
    extra=st.binary(max_size=40),
)
def test_signatures_that_lie_about_counts_are_refused(slots, digests, head, extra):
    head = {field: min(value, 2**32 - 1) for field, value in head.items()}
    exercise("signature", forge.forge_signature(slots, digests, extra, **head))


RUN_PARTS = st.tuples(
    st.one_of(MIXED.map(lambda n: n % 2**64), st.integers(0, 9)), U32 | st.integers(0, 9), st.integers(0, 3)
)


@QUICK
@given(
    runs=st.lists(RUN_PARTS, max_size=6),
    steps=st.lists(U32 | st.integers(0, 9), max_size=6),
    slots=st.lists(U16 | st.integers(0, 9), max_size=4),
    block_count=st.one_of(MIXED, st.integers(0, 60)),
    head=st.fixed_dictionaries(
        {}, optional={"record_count": MIXED, "run_count": MIXED, "data_run_count": MIXED, "packed_bytes": MIXED}
    ),
)
def test_maps_that_lie_about_runs_slots_and_counts_are_refused(runs, steps, slots, block_count, head):
    head = {field: min(value, 2**32 - 1) for field, value in head.items()}
    exercise("map", forge.forge_map(runs, steps, slots, block_count=block_count % 2**64, **head))


@QUICK
@given(data=st.data())
def test_maps_with_damaged_columns_are_read_soundly_or_refused(data):
    """The columns are damaged before they are compressed, so that what is read is a frame of exactly the right size."""
    body = forge.body_of(KINDS["map"].build(data.draw(CONTENTS["map"])))
    fields = list(MAP_HEAD.unpack(body[: MAP_HEAD.size]))
    ids_end = MAP_HEAD.size + 16 * fields[1]
    planes = data.draw(damaged(zstandard.decompress(body[ids_end:])))
    packed = zstandard.compress(planes)
    head = MAP_HEAD.pack(*fields[:4], len(packed))
    exercise("map", forge.forge_object(KINDS["map"].kind, head + body[MAP_HEAD.size : ids_end] + packed))


@QUICK
@given(
    record=st.fixed_dictionaries(
        {},
        optional={
            "encoding": U8, "sealed": U8, "header_bytes": U16, "payload_bytes": U32, "sources": U32, "slots": U16,
            "block_shift": U8, "flags": U8, "absent": U16, "reserved": U16,
        },
    ),
    payload=st.binary(max_size=40),
    row=st.fixed_dictionaries(
        {}, optional={"offset": U32, "payload_bytes": U32, "slots": U16, "block_shift": U8, "absent": U16, "reserved": U16}
    ),
    count=st.none() | MIXED,
)  # fmt: skip
def test_packs_that_lie_in_record_headers_footers_and_trailers_are_refused(record, payload, row, count):
    entry = {"offset": HEADER_BYTES, "payload_bytes": len(payload)} | row
    trailer = None if count is None else TRAILER.pack(min(count, 2**32 - 1), 0, TRAILER_MAGIC)
    records = forge.forge_record(payload, **record)
    exercise("pack", forge.forge_pack(records, forge.forge_footer(entry), trailer))


@QUICK
@given(data=st.data())
def test_packs_with_damaged_records_and_footers_under_right_checksums_are_read_soundly_or_refused(data):
    body = forge.body_of(KINDS["pack"].build(data.draw(CONTENTS["pack"])))
    records, tail = body[: -TRAILER.size], body[-TRAILER.size :]
    count = TRAILER.unpack(tail)[0]
    split = len(records) - 32 * count
    records, footer = data.draw(damaged(records[:split])), data.draw(damaged(records[split:]))
    if data.draw(st.booleans()) and len(records) >= RECORD_HEADER_BYTES:
        # The first record's header gets a checksum that fits what is there now.
        records = records[:56] + forge.digest_bytes(records[:56], length=8) + records[64:]
    exercise("pack", forge.forge_pack(records, footer, tail))
