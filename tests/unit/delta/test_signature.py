# SPDX-License-Identifier: Apache-2.0
"""The root digest: as documented, equal for equal images only, the same when blocks come one after another."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest
from blake3 import blake3

from deltaimg.arrays import FIRST_SLOT, HOLE, RUN, ZERO, Digests
from deltaimg.delta import signature
from deltaimg.delta.signature import RootHasher, expand_slots, root_digest

KEY = bytes(range(32))
BLOCK = 4096
DIGESTS: Digests = np.random.default_rng(9).integers(1, 256, (100, 16), np.uint8)
DIGESTS[:FIRST_SLOT] = 0
Listed = list[tuple[int, int, int]]


def root(runs: Listed, size_bytes: int = 50 * BLOCK) -> bytes:
    return root_digest(KEY, np.array(runs, RUN), DIGESTS, size_bytes=size_bytes, block_bytes=BLOCK)


def slots_of(runs: Listed) -> list[int]:
    """Return the slot of each of 50 blocks."""
    slots = [HOLE] * 50
    for first, count, slot in runs:
        for number in range(count):
            slots[first + number] = slot + number if slot >= FIRST_SLOT else slot
    return slots


def test_the_input_of_the_digest_is_as_documented() -> None:
    runs = [(0, 2, 10), (2, 3, 40), (5, 5, ZERO), (10, 1, 3), (11, 39, HOLE)]
    expected = blake3(key=KEY)
    for slot in (10, 11, 40, 41, 42, 3):
        expected.update(DIGESTS[slot].tobytes())
    expected.update(struct.pack("<4Q", 0, 5, 10, 1))
    expected.update(struct.pack("<3Q", 2, 50 * BLOCK, BLOCK))
    assert root(runs) == expected.digest(16)


def test_how_zeros_are_stored_makes_no_difference() -> None:
    assert root([(0, 2, 10), (2, 48, HOLE)]) == root([(0, 2, 10), (2, 8, ZERO), (10, 40, HOLE)]) == root([(0, 2, 10)])


def test_places_sizes_and_contents_make_a_difference() -> None:
    different = [root([(0, 2, 10)]), root([(1, 2, 10)]), root([(0, 2, 11)]), root([(0, 2, 10)], 49 * BLOCK), root([])]
    assert len(set(different)) == len(different)


@pytest.mark.parametrize("seed", range(20))
def test_blocks_that_come_in_pieces_have_the_same_digest(seed: int) -> None:
    rng = random.Random(seed)
    runs: Listed = []
    at = 0
    while at < 50:
        count = min(rng.randrange(1, 9), 50 - at)
        runs.append((at, count, rng.choice([HOLE, ZERO, rng.randrange(2, 90)])))
        at += count
    digests = DIGESTS[slots_of(runs)]
    hasher = RootHasher(KEY)
    at = 0
    while at < 50:
        count = rng.randrange(1, 20)
        if digests[at : at + count].any() or rng.random() < 0.5:
            hasher.add(at, digests[at : at + count])
        at += count
    assert hasher.finish(size_bytes=50 * BLOCK, block_bytes=BLOCK) == root(runs)


def test_slots_come_in_pieces_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signature, "_CHUNK_BLOCKS", 8)
    runs = np.array([(0, 3, 10), (5, 4, 20), (9, 20, 30), (40, 1, 2)], RUN)
    pieces = list(expand_slots(runs))
    assert np.concatenate(pieces).tolist() == [*range(10, 13), *range(20, 24), *range(30, 50), 2]
    assert len(pieces) == 3
