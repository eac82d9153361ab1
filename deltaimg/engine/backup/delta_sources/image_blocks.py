# SPDX-License-Identifier: Apache-2.0
"""Where the image has stored blocks: those of this backup, and those of the base that the scan has not found changed.

It is a hint: what is read there is verified. A block that the scan comes to later may have changed already.

Memory  24 bytes for each data run of the base; 1 byte for each slot of it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import Runs
from deltaimg.engine.backup.delta_sources.source_records import SourceRecords
from deltaimg.engine.content.slot_lookup import BlockLookup, SlotLookup
from deltaimg.ids import BlockIndexes, SlotNumbers


class ImageBlocks:
    """One thread notes changes; any thread asks."""

    def __init__(self, base_runs: Runs, records: SourceRecords) -> None:
        """Start with all blocks of the base."""
        self._base_slots, self._base_blocks = BlockLookup(base_runs), SlotLookup(base_runs)
        self._records = records
        self._is_gone = np.zeros(records.first_new_slot, np.bool_)

    def note_changed(self, blocks: npt.NDArray[np.uint64]) -> None:
        """Note that the image has other content in `blocks` than the base."""
        slots = self._base_slots.find(blocks)
        # A slot that several blocks refer to counts by the one that is returned for it.
        is_where_found = self._base_blocks.find(slots) == blocks.astype(np.int64)
        self._is_gone[slots[is_where_found]] = True

    def find_in_base(self, slots: SlotNumbers) -> BlockIndexes:
        """Return the block of the image that the base stores in each slot, -1 where there is none."""
        return self._base_blocks.find(slots)

    def find(self, slots: SlotNumbers) -> BlockIndexes:
        """Return a block of the image that should have the content of each slot, -1 where there is none."""
        is_new = self._records.is_new(slots)
        new = np.flatnonzero(is_new)
        blocks = self._base_blocks.find(slots)
        blocks[self._is_gone[np.where(is_new, 0, slots)]] = -1
        if len(new):
            blocks[new] = self._records.find_new(SlotNumbers(slots[new]))
        return blocks
