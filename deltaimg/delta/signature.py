# SPDX-License-Identifier: Apache-2.0
"""The root digest: one value that two images share only if they are equal, byte for byte.

It covers the digests of all blocks that are not zero, where these blocks lie, and the image's size; whether a zero is a hole
or was written makes no difference, and holes cost nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from deltaimg.arrays import DIGEST_BYTES, FIRST_SLOT, Digests, Runs, Slots, end_blocks, mark_data

_TAIL = struct.Struct("<QQQ")
_CHUNK_BLOCKS = 1 << 20


def root_digest(key: bytes, runs: Runs, digests: Digests, *, size_bytes: int, block_bytes: int) -> bytes:
    """Return the 16-byte root digest of the image that `runs` describe, by the digests at their slots.

    Its input: 16 bytes for each block that is not zero, in order; u64 first block and u64 count for each stretch of
    such blocks; u64 stretches, u64 size_bytes, u64 block_bytes.
    """
    data = runs[runs["slot"] >= FIRST_SLOT]
    hasher = blake3(key=key)
    for slots in expand_slots(data):
        hasher.update(digests[slots].data)
    begins = np.flatnonzero(np.concatenate((np.ones(1, np.bool_), data["first_block"][1:] != end_blocks(data)[:-1])))
    stretches = np.empty((len(data[begins[: len(data)]]), 2), "<u8")
    if len(data):
        stretches[:, 0] = data["first_block"][begins]
        stretches[:, 1] = np.add.reduceat(data["count"].astype(np.uint64), begins)
    hasher.update(stretches.tobytes())
    hasher.update(_TAIL.pack(len(stretches), size_bytes, block_bytes))
    return hasher.digest(DIGEST_BYTES)


class RootHasher:
    """The same root digest for blocks that are added in order; those in gaps are zero."""

    def __init__(self, key: bytes) -> None:
        self._hasher = blake3(key=key)
        self._firsts: list[npt.NDArray[np.uint64]] = []
        self._counts: list[npt.NDArray[np.uint64]] = []
        self._end_block = -1

    def add(self, first_block: int, digests: Digests) -> None:
        """Take the digests of blocks from `first_block` on; those of zero blocks are zero."""
        is_data = mark_data(digests)
        if not is_data.any():
            return
        self._hasher.update(np.ascontiguousarray(digests[is_data]).data)
        edges = np.flatnonzero(np.diff(np.concatenate(([False], is_data, [False])).astype(np.int8)))
        firsts = edges[::2].astype(np.uint64) + np.uint64(first_block)
        counts = (edges[1::2] - edges[::2]).astype(np.uint64)
        if int(firsts[0]) == self._end_block:
            self._counts[-1][-1] += counts[0]
            firsts, counts = firsts[1:], counts[1:]
        self._end_block = first_block + int(edges[-1])
        if len(firsts):
            self._firsts.append(firsts)
            self._counts.append(counts)

    def finish(self, *, size_bytes: int, block_bytes: int) -> bytes:
        """Return the 16-byte root digest."""
        stretches = np.empty((sum(map(len, self._firsts)), 2), "<u8")
        if len(stretches):
            stretches[:, 0], stretches[:, 1] = np.concatenate(self._firsts), np.concatenate(self._counts)
        self._hasher.update(stretches.tobytes())
        self._hasher.update(_TAIL.pack(len(stretches), size_bytes, block_bytes))
        return self._hasher.digest(DIGEST_BYTES)


def expand_slots(data_runs: Runs) -> Iterator[Slots]:
    """Yield the slots of data runs, block by block, in pieces of bounded size."""
    ends = np.cumsum(data_runs["count"], dtype=np.uint64)
    first = 0
    while first < len(data_runs):
        done = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, done + _CHUNK_BLOCKS, side="right")))
        piece = data_runs[first:last]
        counts = piece["count"].astype(np.int64)
        within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        yield (np.repeat(piece["slot"], counts) + within.astype(np.uint32)).astype(np.uint32)
        first = last
