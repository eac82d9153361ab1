# SPDX-License-Identifier: Apache-2.0
"""What a restore of the snapshot in the making decodes: the records that hold its blocks, and all that these depend on.

*Restore read amplification* is what a full restore decodes, delta sources included, for each byte of the image that is neither
hole nor zero. A record is decoded whole, however little the image uses of it; of a cut record, what is there.

While blocks are placed this is kept up to date. What the rest of the image will no longer need is not known yet, so it
counts too much until `settle` is given the whole map.

Memory  40 bytes for each stored record that has a number; the sources of each new record.
"""

from __future__ import annotations

from copy import copy

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import FIRST_SLOT, Runs, count_run_blocks, distinct
from deltaimg.engine.content.slot_lookup import BlockLookup
from deltaimg.ids import RecordNumbers
from deltaimg.repo.slots import SlotTable

Numbers = npt.NDArray[np.int64]


class RestoreNeeds:
    """Counts in blocks. Stored records have their numbers in the table; new records are numbered on from these."""

    def __init__(self, table: SlotTable, base_runs: Runs) -> None:
        """Start with what the base needs.

        Args:
            table: has whatever may become a delta source, and the sources of that. No record is numbered in it any more.
        """
        self._table, self._base = table, BlockLookup(base_runs)
        self.stored_count = table.record_count
        """Records that were stored before this backup."""
        self.decoded_blocks = 0
        self._awaited_blocks = 0
        """Blocks that were placed in records which were not added yet."""
        self._held: list[int] = []
        self._new_sources: list[Numbers] = []
        everything = RecordNumbers(np.arange(self.stored_count))
        self.record_blocks = table.count_present(everything)
        """Of each stored record, what it is decoded to."""
        self._count_runs(base_runs)

    @property
    def ratio(self) -> float:
        """Restore read amplification, as far as it is known."""
        return self.decoded_blocks / max(1, self.data_blocks)

    @property
    def is_needed(self) -> npt.NDArray[np.bool_]:
        """Of each stored record, whether a restore decodes it."""
        return (self.direct > 0) | (self.users > 0)

    def list_new_sources(self) -> Numbers:
        """Return the stored records that new records are encoded against, ascending."""
        return distinct(np.empty(0, np.int64), *self._new_sources)

    def place(self, blocks: npt.NDArray[np.uint64], slots: npt.NDArray[np.integer], new_count: int) -> None:
        """Note that blocks of the image are in `slots` now, no longer where the base has them.

        Args:
            new_count: how many of the slots are new; their records come by `add`.
        """
        self.decoded_blocks += new_count
        self._awaited_blocks += new_count
        stored = slots[(slots >= FIRST_SLOT) & (slots < self._table.slot_count)]
        if len(stored):
            self._use(self._table.records_of(stored))
        before = self._base.find(blocks)
        had = before[before >= FIRST_SLOT]
        self.data_blocks += len(blocks) - len(had)
        if len(had):
            self._leave(self._table.records_of(had))

    def add(self, block_count: int, sources: Numbers) -> None:
        """Note the next new record, and the records that it is encoded against, new ones among them."""
        awaited = min(block_count, self._awaited_blocks)
        self._awaited_blocks -= awaited
        self.decoded_blocks += block_count - awaited
        self._held.append(block_count)
        stored = distinct(sources[sources < self.stored_count])
        self._new_sources.append(stored)
        self._acquire(stored)

    def count_added(self, sources: Numbers) -> int:
        """Return how many blocks a restore would decode in addition if `sources`, which may be new records, were needed."""
        stored = sources[sources < self.stored_count]
        frontier = RecordNumbers(stored[~((self.direct[stored] > 0) | (self.users[stored] > 0))])
        if not len(frontier):
            return 0
        found = self._table.add_sources(frontier)
        return int(self.record_blocks[found[~self.is_needed[found]]].sum())

    def correct(self, number: int, sources: Numbers) -> None:
        """Replace the sources that are noted of new record `number`, counted from 0, by those that it has in the end."""
        stored = distinct(sources[sources < self.stored_count])
        self._acquire(stored)
        self._release(self._new_sources[number])
        self._new_sources[number] = stored

    def drop(self, records: RecordNumbers) -> None:
        """Note that the image no longer uses `records` directly: their blocks are stored again."""
        is_free = self.users[records] == 0
        self.direct[records] = 0
        self._free(records[is_free])

    def settle(self, runs: Runs) -> None:
        """Count again, from the whole map of the new snapshot."""
        self.decoded_blocks = sum(self._held) + self._awaited_blocks
        data = runs[(runs["slot"] >= FIRST_SLOT) & (runs["slot"] < self._table.slot_count)]
        # A run may go on from the last stored slot to the first new one.
        data["count"] = np.minimum(data["count"], self._table.slot_count - data["slot"].astype(np.int64))
        self._count_runs(data)
        self.data_blocks = count_run_blocks(runs[runs["slot"] >= FIRST_SLOT])
        for sources in self._new_sources:
            self._acquire(sources)

    def copy(self) -> RestoreNeeds:
        """Return needs that can change without these."""
        made = copy(self)
        made.direct, made.users = self.direct.copy(), self.users.copy()
        made._held, made._new_sources = self._held.copy(), self._new_sources.copy()
        return made

    # -- uses --------------------------------------------------------------------------------------------------------

    def _count_runs(self, runs: Runs) -> None:
        """Start again with the records that `runs`, none of which is in a new record, are in."""
        data = runs[runs["slot"] >= FIRST_SLOT]
        self.data_blocks = count_run_blocks(data)
        cut = self._table.cut_at_records(data, "the map")
        self.direct = np.bincount(self._table.records_of(cut["slot"]), cut["count"], self.stored_count).astype(np.int64)
        """Blocks of the image in each stored record."""
        self.users = np.zeros(self.stored_count, np.int64)
        """Records that are decoded and encoded against each stored record."""
        used = RecordNumbers(np.flatnonzero(self.direct))
        self._need(used)

    def _use(self, records: RecordNumbers) -> None:
        numbers, counts = np.unique(records, return_counts=True)
        is_new = ~self.is_needed[numbers]
        self.direct[numbers] += counts
        self._need(RecordNumbers(numbers[is_new]))

    def _leave(self, records: RecordNumbers) -> None:
        numbers, counts = np.unique(records, return_counts=True)
        left = np.maximum(self.direct[numbers] - counts, 0)
        is_free = (self.direct[numbers] > 0) & (left == 0) & (self.users[numbers] == 0)
        self.direct[numbers] = left
        self._free(RecordNumbers(numbers[is_free]))

    def _acquire(self, sources: Numbers) -> None:
        """Count one more user of each of some records."""
        is_new = ~((self.direct[sources] > 0) | (self.users[sources] > 0))
        self.users[sources] += 1
        self._need(RecordNumbers(sources[is_new]))

    def _release(self, sources: Numbers) -> None:
        """Count one user less of each of some records."""
        self.users[sources] -= 1
        self._free(RecordNumbers(sources[(self.users[sources] == 0) & (self.direct[sources] == 0)]))

    def _need(self, records: RecordNumbers) -> None:
        """Count records that are needed now, and were not before, and what they depend on."""
        while len(records):
            self.decoded_blocks += int(self.record_blocks[records].sum())
            sources, _ = self._table.source_records(records)
            found, counts = np.unique(sources, return_counts=True)
            is_new = ~((self.direct[found] > 0) | (self.users[found] > 0))
            self.users[found] += counts
            records = RecordNumbers(found[is_new])

    def _free(self, records: RecordNumbers) -> None:
        """Count records that are not needed any more, and what they depended on."""
        while len(records):
            self.decoded_blocks -= int(self.record_blocks[records].sum())
            sources, _ = self._table.source_records(records)
            found, counts = np.unique(sources, return_counts=True)
            self.users[found] -= counts
            records = RecordNumbers(found[(self.users[found] == 0) & (self.direct[found] == 0)])
