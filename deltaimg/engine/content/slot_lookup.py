# SPDX-License-Identifier: Apache-2.0
"""Lookups in a map: which slot stores a block of the image, and back, which block a slot holds.

Memory  24 bytes for each data run of the map.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import FIRST_SLOT, HOLE, Runs, end_blocks
from deltaimg.ids import BlockIndexes, SlotNumbers


class BlockLookup:
    """Finds the slot that stores a block of an image."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs[runs["slot"] >= FIRST_SLOT]
        self._ends = end_blocks(self._runs)

    def find(self, blocks: npt.NDArray[np.uint64]) -> SlotNumbers:
        """Return the slot of each block, HOLE for one that the map has no data of."""
        slots = np.full(len(blocks), HOLE, np.int64)
        if len(self._runs):
            runs = np.maximum(np.searchsorted(self._runs["first_block"], blocks, side="right") - 1, 0)
            firsts = self._runs["first_block"][runs]
            found = np.flatnonzero((blocks >= firsts) & (blocks < self._ends[runs]))
            slots[found] = self._runs["slot"][runs[found]] + (blocks[found] - firsts[found]).astype(np.int64)
        return SlotNumbers(slots)


class SlotLookup:
    """Finds the block of an image that a map stores in a slot; of several such blocks always the same one."""

    def __init__(self, runs: Runs) -> None:
        data = runs[runs["slot"] >= FIRST_SLOT]
        data = data[np.argsort(data["slot"], kind="stable")]
        starts, counts = data["slot"].astype(np.int64), data["count"].astype(np.int64)
        # Of runs that share slots the first keeps them: each slot is then in one run, the one that begins last before it.
        taken = np.maximum.accumulate(np.concatenate(([0], starts + counts)))[:-1]
        skipped = np.minimum(np.maximum(taken - starts, 0), counts)
        kept = skipped < counts
        self._starts, self._counts = (starts + skipped)[kept], (counts - skipped)[kept]
        self._blocks = (data["first_block"].astype(np.int64) + skipped)[kept]

    def find(self, slots: SlotNumbers) -> BlockIndexes:
        """Return the block of the image that is stored in each slot, -1 for a slot that the map does not name."""
        if not len(self._starts):
            return BlockIndexes(np.full(len(slots), -1, np.int64))
        runs = np.maximum(np.searchsorted(self._starts, slots, side="right") - 1, 0)
        within = slots - self._starts[runs]
        is_there = (within >= 0) & (within < self._counts[runs])
        return BlockIndexes(np.where(is_there, self._blocks[runs] + within, -1))
