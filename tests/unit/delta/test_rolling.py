# SPDX-License-Identifier: Apache-2.0
"""The index of old blocks: one entry for each content, and blocks found in new content at any offset."""

from __future__ import annotations

import random

import numpy as np
import pytest

from deltaimg.delta.rolling import build_index, whole_stretch
from deltaimg.kernels import BlockIndex, StrongKind, WeakKind, digest_blocks, match_blocks, weak_sums

KEY = bytes(range(32))
SIZE = 1024
BLOCKS = [random.Random(seed).randbytes(SIZE) for seed in range(40)]


def index_of(blocks: list[bytes], **options: object) -> BlockIndex:
    old = memoryview(b"".join(blocks))
    weaks, strongs = weak_sums(WeakKind.WIDE, old, SIZE), digest_blocks(KEY, old, SIZE)[:, :8]
    return build_index(WeakKind.WIDE, StrongKind.BLAKE3, weaks, strongs, block_bytes=SIZE, key=KEY, **options)  # type: ignore[arg-type]


def find(index: BlockIndex, new: bytes) -> list[tuple[int, int]]:
    """Return position and old block of each match, long ones taken apart."""
    found = match_blocks(index, memoryview(new), whole_stretch(len(new)), 0)
    return [
        (int(each["position"]) + number * SIZE, int(each["block"]) + number)
        for each in found
        for number in range(int(each["count"]) if "count" in (found.dtype.names or ()) else 1)
    ]


def test_blocks_are_found_wherever_they_moved() -> None:
    index = index_of(BLOCKS)
    new = b"odd" + BLOCKS[7] + BLOCKS[8] + b"something new" * 100 + BLOCKS[0] + BLOCKS[39][:-1]
    assert find(index, new) == [(3, 7), (3 + SIZE, 8), (3 + 2 * SIZE + 1300, 0)]


def test_only_wanted_blocks_are_found() -> None:
    index = index_of(BLOCKS, wanted=np.array([3, 5], np.uint32))
    assert find(index, b"".join(BLOCKS[2:7])) == [(SIZE, 3), (3 * SIZE, 5)]


@pytest.mark.parametrize(("takes_last", "expected"), [(False, 1), (True, 5)])
def test_of_equal_blocks_the_first_or_the_last_is_named(takes_last: bool, expected: int) -> None:
    blocks = BLOCKS[:1] + [BLOCKS[20]] * 5 + BLOCKS[1:5]
    index = index_of(blocks, takes_last=takes_last, prefers_next=False)
    assert find(index, b"in front" + BLOCKS[20]) == [(8, expected)]


def test_each_content_has_one_entry() -> None:
    index = index_of([BLOCKS[0]] * 1000 + BLOCKS[1:3])
    assert len(index.mixed) == 3


def test_blocks_with_equal_weak_sums_are_told_apart_by_strong_ones() -> None:
    strongs = np.arange(64, dtype=np.uint8).reshape(8, 8)
    index = build_index(WeakKind.WIDE, StrongKind.BLAKE3, np.full(8, 77, np.uint64), strongs, block_bytes=SIZE, key=KEY)
    assert sorted(index.blocks.tolist()) == list(range(8))


def test_an_index_of_nothing_finds_nothing() -> None:
    assert find(index_of([]), BLOCKS[0]) == []
