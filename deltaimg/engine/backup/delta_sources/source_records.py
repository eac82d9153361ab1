# SPDX-License-Identifier: Apache-2.0
"""The records that may become delta sources: those of the repository and the latest of this backup, in one numbering.

New records are numbered on from those of the slot table, and their slots on from its slots: record n of this backup has the
slots from `first_new_slot + n * record_blocks` on.

Memory  16 bytes for each of the latest new records, its id, and its runs in the image.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.arrays import DIGEST_BYTES, Digests, Runs, distinct
from deltaimg.engine.content.slot_lookup import SlotLookup
from deltaimg.format.sources import SourceTable, describe_slots
from deltaimg.ids import BlockIndexes, RecordNumber, RecordNumbers, SlotNumbers
from deltaimg.repo.slots import SlotTable

_RECENT_RECORDS = 8192
"""So many of the latest records of the backup can be delta sources of later ones."""
_IN_FLIGHT = 256
"""New records stay known somewhat longer than they may be chosen: what was chosen is fetched later."""
UNUSABLE = -1
"""In place of a delta depth: the record cannot be a delta source."""


class NewRecord(Struct, frozen=True):
    """A record of this backup: its id, and the blocks of the image that its slots hold."""

    id: bytes
    runs: Runs


class SourceRecords:
    """Answers what record a slot is in, how deep its deltas are, and what it is called.

    One thread adds records; any thread asks about those that were added.
    """

    def __init__(self, table: SlotTable, first_new_slot: int, record_blocks: int) -> None:
        """Start without new records.

        Args:
            table: has every stored record that may become a delta source, and their sources.
            first_new_slot: the first slot of the first record of this backup.
        """
        self.table, self.first_new_slot = table, first_new_slot
        self._record_blocks = record_blocks
        depths = table.index.links.depths
        self.stored_depths = depths[table.entries].astype(np.int64) if len(depths) else np.empty(0, np.int64)
        """Delta depth of each record of the table."""
        self.new_count = 0
        self._new: OrderedDict[int, NewRecord] = OrderedDict()
        # Of each of the latest new records, at its number modulo their count: its delta depth, and how many records of this
        # backup depend on one another, it being the last of them.
        self._new_depths, self._new_levels = np.zeros((2, _RECENT_RECORDS), np.int64)

    def add(self, record: NewRecord, depth: int, levels: int) -> None:
        """Number the next new record.

        Args:
            depth: of its deltas. levels: how many records of this backup depend on one another, it being the last.
        """
        self._new[self.new_count] = record
        self._new_levels[self.new_count % _RECENT_RECORDS] = levels
        self._count(depth)
        if len(self._new) > _RECENT_RECORDS + _IN_FLIGHT:
            self._new.popitem(last=False)

    def skip(self) -> None:
        """Number a new record that is not a delta source in this backup."""
        self._count(UNUSABLE)

    def is_new(self, slots: SlotNumbers) -> npt.NDArray[np.bool_]:
        """Return whether each slot is of this backup."""
        return slots >= self.first_new_slot

    def records_of(self, slots: SlotNumbers) -> RecordNumbers:
        """Return the number of the record that each slot is in."""
        is_new = self.is_new(slots)
        stored = self.table.records_of(np.where(is_new, 0, slots))
        new = self.table.record_count + (slots - self.first_new_slot) // self._record_blocks
        return RecordNumbers(np.where(is_new, new, stored))

    def depths_of(self, records: RecordNumbers) -> npt.NDArray[np.int64]:
        """Return the delta depth of each record, UNUSABLE for what cannot be a delta source."""
        numbers, is_recent = self._number_recent(records)
        depths = np.full(len(records), UNUSABLE, np.int64)
        depths[is_recent] = self._new_depths[numbers[is_recent] % _RECENT_RECORDS]
        is_stored = (records >= 0) & (records < len(self.stored_depths))
        depths[is_stored] = self.stored_depths[records[is_stored]]
        return depths

    def levels_of(self, records: RecordNumbers) -> npt.NDArray[np.int64]:
        """Return how many records of this backup each record is the last of, that depend on one another; 0 for stored ones."""
        numbers, is_recent = self._number_recent(records)
        return np.where(is_recent, self._new_levels[numbers % _RECENT_RECORDS], 0)

    def id_of(self, record: RecordNumber) -> bytes:
        """Return the id of a record."""
        if record < self.table.record_count:
            return bytes(self.table.record_ids[record].data)
        return self._new[record - self.table.record_count].id

    def find_new(self, slots: SlotNumbers) -> BlockIndexes:
        """Return the block of the image that each slot of this backup holds, -1 where that is not known any more."""
        numbers = (slots - self.first_new_slot) // self._record_blocks
        blocks = np.full(len(slots), -1, np.int64)
        for number in distinct(numbers).tolist():
            new = self._new.get(number)
            if new is not None:
                blocks[numbers == number] = SlotLookup(new.runs).find(slots[numbers == number])
        return BlockIndexes(blocks)

    def describe(self, slots: SlotNumbers) -> SourceTable:
        """Return ascending slots as the table of sources that a delta record begins with."""
        records = self.records_of(slots)
        return describe_slots(records, slots - self._first_slots_of(records), self._find_ids)

    def _find_ids(self, records: npt.NDArray[np.int64]) -> Digests:
        ids = b"".join(self.id_of(record) for record in RecordNumbers(records).tolist())
        return np.frombuffer(ids, np.uint8).reshape(-1, DIGEST_BYTES)

    def _first_slots_of(self, records: RecordNumbers) -> npt.NDArray[np.int64]:
        numbers = records - self.table.record_count
        firsts = self.first_new_slot + numbers * self._record_blocks
        is_stored = numbers < 0
        firsts[is_stored] = self.table.first_slots[records[is_stored]]
        return firsts

    def _number_recent(self, records: RecordNumbers) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Return each record's number among the new ones, and whether it is one of the latest of them."""
        numbers = records - self.table.record_count
        is_recent = (numbers >= max(0, self.new_count - _RECENT_RECORDS)) & (numbers < self.new_count)
        return numbers, is_recent

    def _count(self, depth: int) -> None:
        self._new_depths[self.new_count % _RECENT_RECORDS] = depth
        self.new_count += 1
