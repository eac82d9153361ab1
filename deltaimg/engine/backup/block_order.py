# SPDX-License-Identifier: Apache-2.0
"""The order of changed blocks in records: by the delta depth of the content that they replace.

A delta record is one deeper than its deepest source. If blocks that change in every backup shared records with
neighbours that had not changed for a year, each record would depend on the previous backup's, and within a week all would be at
the bound where content is stored as a literal again. Ordered by depth, only the blocks that change in every backup are.

Memory  4 records of blocks for each depth.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import FIRST_SLOT, Runs, distinct
from deltaimg.engine.backup.changed_blocks import ChangedBlocks
from deltaimg.engine.content.slot_lookup import BlockLookup
from deltaimg.kernels import gather_blocks
from deltaimg.repo.slots import SlotTable

_BATCH_RECORDS = 4
"""Records of one depth in a row; where two depths meet, a record has blocks of both."""


class BlockOrder:
    """Takes changed blocks in image order, and gives them back in batches of one depth."""

    def __init__(self, table: SlotTable, base_runs: Runs, record_blocks: int, block_bytes: int) -> None:
        self._table, self._block_bytes = table, block_bytes
        self._batch_blocks = _BATCH_RECORDS * record_blocks
        self._base = BlockLookup(base_runs)
        self._batches: dict[int, _Batch] = {}

    def add(self, changed: ChangedBlocks) -> Iterator[ChangedBlocks]:
        """Take blocks, which are copied; yield each batch that is full, valid until the next is requested."""
        depths = self._find_depths(changed.blocks)
        for depth in distinct(depths).tolist():
            waiting = changed.choose(np.flatnonzero(depths == depth))
            if depth not in self._batches:
                self._batches[depth] = _Batch(self._batch_blocks, self._block_bytes)
            batch = self._batches[depth]
            while len(waiting.blocks):
                filled = batch.fill(waiting)
                if batch.is_full:
                    yield batch.take()
                waiting = waiting.choose(slice(filled, None))

    def drain(self) -> Iterator[ChangedBlocks]:
        """Yield what is left."""
        for depth in sorted(self._batches):
            if not self._batches[depth].is_empty:
                yield self._batches[depth].take()

    def _find_depths(self, blocks: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """Return the delta depth of what the base has at each of `blocks`, 0 where it has nothing."""
        slots = self._base.find(blocks)
        had = np.flatnonzero(slots >= FIRST_SLOT)
        depths = np.zeros(len(blocks), np.int64)
        depths[had] = self._table.index.links.depths[self._table.entries[self._table.records_of(slots[had])]]
        return depths


class _Batch:
    """Blocks of one depth."""

    def __init__(self, most_blocks: int, block_bytes: int) -> None:
        self._content = np.empty(most_blocks * block_bytes, np.uint8)
        self._most_blocks, self._block_bytes = most_blocks, block_bytes
        self._parts: list[ChangedBlocks] = []
        self._count = 0

    @property
    def is_full(self) -> bool:
        return self._count == self._most_blocks

    @property
    def is_empty(self) -> bool:
        return not self._count

    def fill(self, changed: ChangedBlocks) -> int:
        """Copy as many blocks as there is room for, and return how many."""
        taken = changed.choose(slice(self._most_blocks - self._count))
        count = len(taken.blocks)
        start = self._count * self._block_bytes
        room = self._content[start : start + count * self._block_bytes]
        gather_blocks(taken.content, self._block_bytes, taken.indexes, room)
        self._parts.append(taken)
        self._count += count
        return count

    def take(self) -> ChangedBlocks:
        """Return all that was filled in; the next call to `fill` overwrites it."""
        blocks = np.concatenate([part.blocks for part in self._parts])
        digests = np.concatenate([part.digests for part in self._parts])
        indexes = np.arange(self._count, dtype=np.uint32)
        self._parts, self._count = [], 0
        return ChangedBlocks(self._content.data, indexes, blocks, digests)
