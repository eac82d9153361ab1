# SPDX-License-Identifier: Apache-2.0
"""Packs, by their footer and without it."""

from __future__ import annotations

import pytest

from deltaimg.errors import DigestMismatch, Malformed, Truncated
from deltaimg.format.framing import HEADER_BYTES, digest_bytes
from deltaimg.format.pack import finish_pack, pack_name, parse_pack_footer, scan_records
from deltaimg.format.record import (
    RECORD_HEADER_BYTES,
    RecordHeader,
    build_record_header,
    check_payload,
    parse_record_header,
)
from tests.golden import forge
from tests.golden.samples import record

RECORDS = [record(seed, bytes([seed]) * length, encoding=0, slots=1) for seed, length in ((1, 4096), (2, 0), (3, 777))]
DATA = b"".join(finish_pack(RECORDS)[0])


def test_the_footer_and_a_walk_over_the_records_agree():
    footer = parse_pack_footer("packs/x", DATA)
    walked = list(scan_records("packs/x", DATA))
    assert [header for _, header in walked] == [header for header, _ in RECORDS]
    assert footer["offset"].tolist() == [offset for offset, _ in walked] == [64, 4224, 4288]
    assert [entry.tobytes() for entry in footer["id"]] == [header.id for header, _ in RECORDS]


def test_the_footer_that_is_read_is_the_one_that_was_laid_out():
    assert parse_pack_footer("packs/x", DATA).tobytes() == finish_pack(RECORDS)[1].tobytes()


@pytest.mark.parametrize("lost", [1, 16, 17, 112])
def test_records_are_found_when_the_footer_is_lost(lost):
    with pytest.raises(Truncated):
        parse_pack_footer("packs/x", DATA[:-lost])
    assert len(list(scan_records("packs/x", DATA[:-lost]))) == 3


def test_a_walk_yields_the_records_before_the_one_that_is_cut():
    found = []
    with pytest.raises(Truncated):
        found.extend(offset for offset, _ in scan_records("packs/x", DATA[: HEADER_BYTES + 4160 + 64 + 70]))
    walk = scan_records("packs/x", DATA[: HEADER_BYTES + 4160 + 64 + 70])
    assert [next(walk)[0], next(walk)[0]] == [64, 4224]


def test_a_header_says_how_long_the_content_is():
    header = RecordHeader(bytes(16), 1, 256, 12, 10, bytes(16))
    assert parse_record_header("packs/x", 64, build_record_header(header)) == header
    assert header.raw_bytes == 2**20


@pytest.mark.parametrize("bit", range(8 * RECORD_HEADER_BYTES))
def test_no_flipped_bit_of_a_record_header_goes_unseen(bit):
    damaged = bytearray(forge.forge_record(b"x"))
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Malformed) as caught:
        parse_record_header("packs/x", 4711, damaged)
    assert caught.value.offset == 4711


def test_a_payload_is_held_against_its_header():
    header, payload = RECORDS[0]
    check_payload("packs/x", 64, header, payload)
    with pytest.raises(Truncated):
        check_payload("packs/x", 64, header, payload[:-1])
    with pytest.raises(DigestMismatch):
        check_payload("packs/x", 64, header, b"\0" + payload[1:])


def test_records_of_the_largest_size_are_read():
    payload = bytes(2**24)
    data = forge.forge_record(payload, slots=16, block_shift=20)
    assert parse_record_header("packs/x", 64, data).raw_bytes == 2**24
    assert parse_record_header("packs/x", 64, forge.forge_record(slots=4096)).payload_digest == digest_bytes(b"payload")


def test_packs_are_spread_over_folders_by_their_first_digits():
    assert pack_name("ab" + "0" * 62) == "packs/ab/ab" + "0" * 62
