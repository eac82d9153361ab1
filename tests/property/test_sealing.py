# SPDX-License-Identifier: Apache-2.0
"""Whatever is sealed is opened as it was; whatever else is made of it, with right digests, is refused."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deltaimg.errors import DeltaimgError, Malformed, OnlyWrites
from deltaimg.format.framing import HEADER_BYTES, Kind, digest_bytes, frame, parse_header
from deltaimg.format.limits import MAX_RECORD_BYTES
from deltaimg.format.padding import find_content_bytes, padded_bytes, padme
from deltaimg.format.record import SEAL_BYTES, RecordHeader, build_record_header, parse_record_header
from deltaimg.format.sealing import find_host
from tests.fuzz.sealed_targets import PADDED_SEALERS, SEALERS, TARGETS
from tests.property.format_strategies import damaged

QUICK = settings(max_examples=60, deadline=2000, suppress_health_check=[HealthCheck.too_slow])
SECRET_SEALER, HOST_SEALER = SEALERS
ALL = pytest.mark.parametrize("sealer", SEALERS + PADDED_SEALERS, ids=["secret", "host", "padded", "padded-host"])


@ALL
@QUICK
@given(kind=st.sampled_from(list(Kind)), body=st.binary(max_size=300))
def test_an_object_of_any_kind_and_body_is_opened_as_it_was_sealed(sealer, kind, body):
    data = frame(kind, body)
    sealed = sealer.seal_object(data)
    assert parse_header(kind, "x", sealed, may_be_sealed=True).is_sealed
    assert find_host(sealed) == sealer.host
    assert sealed != sealer.seal_object(data)
    # Headers have zeros, and what is sealed may have a few bytes of the body by chance.
    assert body not in sealed[HEADER_BYTES:] or len(body.strip(b"\0")) < 8
    reader_of_all = PADDED_SEALERS[0]
    assert sealer.measure_object(len(data)) == len(sealed)
    for reader in {reader_of_all, sealer}:
        assert reader.open_object(kind, "x", sealed)[HEADER_BYTES:] == body
    for other in set(Kind) - {kind}:
        with pytest.raises(DeltaimgError):
            reader_of_all.open_object(other, "x", sealed)


@st.composite
def records(draw):
    payload = draw(st.binary(max_size=200))
    shift = draw(st.integers(12, 20))
    slots = draw(st.integers(1, MAX_RECORD_BYTES >> shift))
    absent = draw(st.integers(0, slots - 1))
    header = RecordHeader(
        id=draw(st.binary(min_size=16, max_size=16)),
        encoding=draw(st.integers(0, 255)),
        slots=slots,
        block_shift=shift,
        payload_bytes=len(payload),
        payload_digest=digest_bytes(payload),
        sources=draw(st.integers(0, 4096)),
        absent=absent,
    )
    return header, payload


@ALL
@QUICK
@given(batch=st.lists(records(), min_size=1, max_size=6))
def test_records_are_opened_as_they_were_sealed_and_in_no_place_of_another(sealer, batch):
    sealed = sealer.seal_records(batch)
    for (header, payload), (found, data) in zip(batch, sealed, strict=True):
        assert parse_record_header("packs/x", 0, build_record_header(found)) == found
        content_bytes = padded_bytes(len(payload)) if sealer in PADDED_SEALERS else len(payload)
        assert len(data) == found.payload_bytes == content_bytes + SEAL_BYTES[found.sealed]
        assert bytes(SECRET_SEALER.open_record("packs/x", 0, found, data)) == payload
        assert (header.id, header.slots) == (found.id, found.slots)
        with pytest.raises(OnlyWrites):
            HOST_SEALER.open_record("packs/x", 0, found, data)
    places = {bytes(data[: SEAL_BYTES[found.sealed] - 16]) for found, data in sealed}
    assert len(places) == len(batch), "a nonce came twice"
    for one, (header, _) in enumerate(sealed):
        for other, (_, data) in enumerate(sealed):
            if one != other and len(data) == header.payload_bytes and header != sealed[other][0]:
                moved = parse_record_header("packs/x", 0, build_record_header(header))
                if build_record_header(moved)[:40] != build_record_header(sealed[other][0])[:40]:
                    with pytest.raises(DeltaimgError):
                        SECRET_SEALER.open_record("packs/x", 0, moved, data)


@pytest.mark.parametrize("name", TARGETS)
@QUICK
@given(data=st.data())
def test_what_is_damaged_and_has_right_digests_says_what_was_sealed_or_is_refused(name, data):
    target = TARGETS[name]
    target.exercise(data.draw(damaged(data.draw(st.sampled_from(target.seeds)))))


@pytest.mark.parametrize("name", TARGETS)
def test_what_this_begins_with_is_opened(name):
    for seed in TARGETS[name].seeds:
        assert TARGETS[name].exercise(seed) is not None


@QUICK
@given(size_bytes=st.integers(0, 1 << 24), room=st.none() | st.integers(0, 1 << 20))
def test_lengths_of_one_class_are_one_length_and_grow_by_an_eighth_at_most(size_bytes, room):
    most_bytes = None if room is None else size_bytes + room
    length = padded_bytes(size_bytes, most_bytes)
    assert size_bytes < length <= size_bytes + size_bytes // 8 + 1
    assert padme(padme(size_bytes)) == padme(size_bytes)
    assert most_bytes is None or length <= most_bytes + 1
    # As the paper has it: the mantissa of a length is as long as its exponent.
    if size_bytes > 1:
        assert len(f"{padme(size_bytes):b}".rstrip("0")) <= size_bytes.bit_length().bit_length() + 1


@QUICK
@given(content=st.binary(max_size=600), room=st.integers(0, 100), changed=st.integers(0, 700), byte=st.integers(0, 255))
def test_padding_is_taken_off_and_no_other_is_taken(content, room, changed, byte):
    most_bytes = len(content) + room
    padded = (content + b"\x80").ljust(padded_bytes(len(content), most_bytes), b"\0")
    assert find_content_bytes("x", 0, padded, most_bytes) == len(content)
    forged = bytearray(padded)
    forged[changed % len(forged)] = byte
    for bad in (bytes(forged), padded + b"\0", padded[:-1], b""):
        found = 0
        with suppress(Malformed):
            found = find_content_bytes("x", 0, bad, most_bytes)
        assert not found or bad == (bad[:found] + b"\x80").ljust(padded_bytes(found, most_bytes), b"\0")
