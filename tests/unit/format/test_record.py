# SPDX-License-Identifier: Apache-2.0
"""The tables that a record's payload begins with, and the digests that verify a cut record's id."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaimg.codec.zstd import ZstdCodec
from deltaimg.delta.encode import Encoder
from deltaimg.delta.sources import Sources
from deltaimg.delta.zstd_delta import ZstdDelta
from deltaimg.errors import Malformed
from deltaimg.format.record import CutTable, RecordHeader, RecordTables, build_tables, parse_tables
from deltaimg.format.slot_runs import SLOT_RUN
from deltaimg.format.sources import SourceTable
from deltaimg.kernels import digest_blocks, digest_buffer
from tests.property.format_strategies import kept_runs

KEY, RECORD_KEY = bytes(range(32)), bytes(range(32, 64))
SLOTS, BLOCK = 16, 4096


def make_content(seed: int) -> bytes:
    return np.random.default_rng(seed).integers(0, 9, SLOTS * BLOCK, np.uint8).tobytes()


def make_header(tables: RecordTables, payload: bytes, slots: int = SLOTS) -> RecordHeader:
    absent = 0 if tables.cut is None else len(tables.cut.absent_digests)
    sources = 0 if tables.sources is None else len(tables.sources.ids)
    return RecordHeader(bytes(16), 0, slots, 12, len(payload), bytes(16), sources, absent)


def cut_of(runs: np.ndarray) -> CutTable:
    absent = SLOTS - int(runs["count"].sum())
    return CutTable(runs, np.arange(absent * 16, dtype=np.uint8).reshape(-1, 16))


@given(kept_runs(SLOTS), st.booleans(), st.binary(max_size=9))
def test_tables_are_read_as_written_with_what_follows_them(runs, is_delta, rest):
    sources = SourceTable(np.ones((1, 16), np.uint8), np.ones(1, np.uint16), np.array([(3, 4)], SLOT_RUN))
    tables = RecordTables(cut_of(runs), sources if is_delta else None)
    payload = build_tables(tables) + rest
    found, encoded = parse_tables("packs/x", 64, make_header(tables, payload), memoryview(payload))
    assert bytes(encoded) == rest
    assert build_tables(found) == build_tables(tables)
    assert found.cut is not None
    assert len(found.cut.kept) + len(found.cut.absent_digests) == SLOTS


@pytest.mark.parametrize(
    ("runs", "problem"),
    [
        ([(0, 1), (1, 1)], "overlap or are out of order"),
        ([(0, 3)], "has 3 slots up to 3"),
        ([(15, 2)], "has 2 slots up to 17"),
    ],
)
def test_tables_that_are_not_what_the_header_promises_are_refused(runs, problem):
    tables = RecordTables(CutTable(np.array(runs, SLOT_RUN), np.zeros((SLOTS - 2, 16), np.uint8)))
    payload = build_tables(tables) + b"content"
    with pytest.raises(Malformed, match=problem):
        parse_tables("packs/x", 64, make_header(tables, payload), memoryview(payload))


@pytest.mark.parametrize("length", [0, 1, 2, 3, 3 + 16 * 14 - 1])
def test_tables_that_pass_the_payload_are_refused(length):
    tables = RecordTables(cut_of(np.array([(0, 2)], SLOT_RUN)))
    payload = build_tables(tables)[:length]
    with pytest.raises(Malformed, match="room"):
        parse_tables("packs/x", 64, make_header(tables, payload), memoryview(payload))


@pytest.mark.parametrize("is_delta", [False, True])
def test_a_cut_record_has_the_id_of_the_whole_one_and_enough_to_verify_it(is_delta):
    content, old = make_content(1), make_content(2)
    digests = digest_blocks(KEY, content, BLOCK)
    encoder = Encoder(
        ZstdCodec(3), ((ZstdDelta(),),), record_key=RECORD_KEY, block_bytes=BLOCK, is_delta_forced=is_delta
    )
    kept = np.array([0, 1, 7, 15])
    part = b"".join(content[slot * BLOCK : (slot + 1) * BLOCK] for slot in kept)
    table = SourceTable(np.ones((1, 16), np.uint8), np.ones(1, np.uint16), np.array([(0, SLOTS)], SLOT_RUN))
    sources = Sources(table, memoryview(old)) if is_delta else None
    scratch = memoryview(bytearray(SLOTS * BLOCK))
    whole = encoder.encode(memoryview(content), digests, sources, scratch)
    cut = encoder.encode(memoryview(part), digests, sources, scratch, kept)
    assert cut.header.id == whole.header.id
    assert (cut.header.slots, cut.header.absent, cut.header.kept_bytes) == (SLOTS, 12, len(part))
    assert len(cut.payload) < len(whole.payload)

    tables, encoded = parse_tables("packs/x", 64, cut.header, memoryview(cut.payload))
    assert (tables.sources is not None) == is_delta
    decoder = ZstdDelta() if is_delta else ZstdCodec(3)
    decoded = decoder.decode(encoded, *([memoryview(old)] if is_delta else []), len(part))
    assert bytes(decoded) == part
    assert tables.cut is not None
    all_digests = np.empty((SLOTS, 16), np.uint8)
    all_digests[tables.cut.kept] = digest_blocks(KEY, decoded, BLOCK)
    all_digests[np.delete(np.arange(SLOTS), tables.cut.kept)] = tables.cut.absent_digests
    assert digest_buffer(all_digests.data, RECORD_KEY, 16) == cut.header.id


def test_a_record_of_which_all_is_kept_is_a_whole_one():
    content = make_content(3)
    encoder = Encoder(ZstdCodec(3), (), record_key=RECORD_KEY, block_bytes=BLOCK)
    scratch = memoryview(bytearray(SLOTS * BLOCK))
    digests = digest_blocks(KEY, content, BLOCK)
    made = encoder.encode(memoryview(content), digests, None, scratch, np.arange(SLOTS))
    assert made.header == encoder.encode(memoryview(content), digests, None, scratch).header
    assert made.tables.cut is None
