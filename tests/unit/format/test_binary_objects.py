# SPDX-License-Identifier: Apache-2.0
"""Index, map and signature at the edges of what is legal; what is beyond them is in tests/golden/v1/bad."""

from __future__ import annotations

import numpy as np
import pytest

from deltaimg.arrays import RUN
from deltaimg.errors import Malformed
from deltaimg.format.index import parse_index
from deltaimg.format.limits import MAX_BLOCKS
from deltaimg.format.map import MapObject, build_map, parse_map
from deltaimg.format.signature import parse_signature
from tests.golden import forge


@pytest.mark.parametrize(
    "entry",
    [
        {"offset": 2**32 - 1},
        {"slots": 4096, "block_shift": 12, "payload_bytes": 2**24},
        {"slots": 16, "block_shift": 20, "payload_bytes": 2**24},
        {"first_digest": 2**32 - 1},
        {"encoding": 255},
    ],
    ids=str,
)
def test_an_index_entry_at_its_limits_is_read(entry):
    found = parse_index(forge.forge_index(entries=[entry]), "index/x").entries
    assert {field: int(found[field][0]) for field in entry} == entry


def test_an_index_may_list_a_record_twice_and_packs_that_no_record_needs():
    found = parse_index(forge.forge_index(packs=3, entries=[{}, {}]), "index/x")
    assert (len(found.packs), len(found.entries)) == (3, 2)


def test_a_signature_of_the_largest_record_is_read():
    assert len(parse_signature(forge.forge_signature([4096]), "signatures/x").digests) == 4096


def map_of(runs: list[tuple[int, int, int]], slots: list[int], block_count: int) -> MapObject:
    ids = np.arange(16 * len(slots), dtype=np.uint32).astype(np.uint8).reshape(-1, 16)
    return MapObject(block_count, ids, np.array(slots, np.uint16), np.array(runs, RUN))


@pytest.mark.parametrize(
    ("runs", "slots", "block_count"),
    [
        ([], [], 0),
        ([], [4096], MAX_BLOCKS),
        ([(MAX_BLOCKS - 1, 1, 1)], [], MAX_BLOCKS),
        ([(MAX_BLOCKS - 2**32 + 1, 2**32 - 1, 0)], [], MAX_BLOCKS),
        ([(0, 8, 2)], [1, 2, 5], 8),
        ([(0, 1, 9), (1, 1, 2), (2, 1, 9), (3, 1, 8)], [8], 4),
        ([(0, 4, 2), (4, 4, 2)], [4], 8),
    ],
    ids=["nothing", "no-runs", "last-block", "longest-run", "across-records", "back-and-forth", "twice-the-same"],
)
def test_a_map_at_its_limits_is_read_as_written(runs, slots, block_count):
    content = map_of(runs, slots, block_count)
    found = parse_map(build_map(content), "maps/x")
    assert found.block_count == block_count
    assert found.runs.tolist() == runs
    np.testing.assert_array_equal(found.record_slots, content.record_slots)
    np.testing.assert_array_equal(found.record_ids, content.record_ids)


def test_runs_of_many_long_gaps_are_refused_though_their_sum_would_wrap_to_a_place_inside():
    """2^16 gaps of 2^48 make 2^64: a sum of 64 bits comes out at zero."""
    data = forge.forge_map([(2**48, 1, 0)] * 2**16, block_count=2**48)
    with pytest.raises(Malformed, match="pass the end of the image"):
        parse_map(data, "maps/x")


def test_slots_beyond_what_32_bits_can_number_are_refused():
    """The kernels would call a run that passes 2^32 a defect of deltaimg; it is one of the map."""
    data = forge.forge_map([(0, 1, 2)], [0], [4096] * 2**20)
    with pytest.raises(Malformed, match="more than can be numbered"):
        parse_map(data, "maps/x")


def test_what_a_map_returns_is_its_own_memory_and_can_be_changed():
    found = parse_map(build_map(map_of([(0, 1, 2)], [1], 1)), "maps/x")
    found.runs["slot"] = 0
    assert found.runs.tolist() == [(0, 1, 0)]
