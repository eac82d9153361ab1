# SPDX-License-Identifier: Apache-2.0
"""Numbers for records and for their slots, in the order in which they are met. 0 is a hole and 1 zero, as everywhere.

Memory  32 bytes a record.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import DIGEST_BYTES, FIRST_SLOT, RUN, Digests, Runs
from deltaimg.errors import UsageError
from deltaimg.format.map import MapObject

MAX_SLOTS = 2**32 - 2**20


class RecordNumbers:
    """Records and their slots, numbered without a gap."""

    def __init__(self) -> None:
        self.slot_count = FIRST_SLOT
        self._ids: Digests = np.empty((0, DIGEST_BYTES), np.uint8)
        self._first_slots = np.empty(0, np.int64)
        self._slot_counts = np.empty(0, np.int64)

    @property
    def record_count(self) -> int:
        return len(self._slot_counts)

    @property
    def record_ids(self) -> Digests:
        return self._ids

    @property
    def first_slots(self) -> npt.NDArray[np.int64]:
        """The first slot of each record, ascending; the record after starts where this one ends."""
        return self._first_slots

    @property
    def slot_counts(self) -> npt.NDArray[np.int64]:
        return self._slot_counts

    def records_of(self, slots: npt.NDArray[np.generic]) -> npt.NDArray[np.int64]:
        """Return the record number of each data slot."""
        return np.searchsorted(self._first_slots, slots, side="right") - 1

    def used_records(self, runs: Runs) -> npt.NDArray[np.int64]:
        """Return the numbers of the records that the data runs among `runs` touch, ascending."""
        data = runs[runs["slot"] >= FIRST_SLOT]
        if not len(data):
            return np.empty(0, np.int64)
        depth = np.zeros(self.record_count + 1, np.int64)
        np.add.at(depth, self.records_of(data["slot"]), 1)
        np.add.at(depth, self.records_of(data["slot"] + (data["count"] - 1)) + 1, -1)
        return np.flatnonzero(np.cumsum(depth))

    def _check_room(self, counts: npt.NDArray[np.int64]) -> None:
        if self.slot_count + int(counts.sum()) > MAX_SLOTS:
            raise UsageError(
                f"more than {MAX_SLOTS} blocks to keep in view at once",
                hint="use larger blocks: 'backup --block-size 64K'",
            )

    def _append_numbers(self, ids: Digests, counts: npt.NDArray[np.int64]) -> None:
        self._ids = np.concatenate((self._ids, ids))
        self._first_slots = np.concatenate((self._first_slots, self.slot_count + np.cumsum(counts) - counts))
        self._slot_counts = np.concatenate((self._slot_counts, counts))
        self.slot_count += int(counts.sum())


class LayerNumbers(RecordNumbers):
    """The records of one map layer, numbered as the layer does it."""

    def __init__(self, layer: MapObject) -> None:
        super().__init__()
        self._append_numbers(layer.record_ids, layer.record_slots.astype(np.int64))


def renumber_runs(
    runs: Runs,
    first_slots: npt.NDArray[np.int64],
    slot_counts: npt.NDArray[np.int64],
    new_first_slots: npt.NDArray[np.int64],
) -> Runs:
    """Move data runs from one numbering of records to another, cutting them where records part.

    Args:
        first_slots: of each record in the old numbering, ascending. Every data run must lie within these records.
        new_first_slots: of the same records in the new one.
    """
    is_data = runs["slot"] >= FIRST_SLOT
    data = runs[is_data]
    if not len(data):
        return runs
    slots = data["slot"].astype(np.int64)
    ends = slots + data["count"]
    first_record = np.searchsorted(first_slots, slots, side="right") - 1
    pieces = np.searchsorted(first_slots, ends - 1, side="right") - first_record
    of_run = np.repeat(np.arange(len(data)), pieces)
    record = first_record[of_run] + np.arange(len(of_run)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    start = np.maximum(slots[of_run], first_slots[record])
    end = np.minimum(ends[of_run], first_slots[record] + slot_counts[record])
    cut = np.empty(len(of_run), RUN)
    cut["first_block"] = data["first_block"][of_run] + (start - slots[of_run]).astype(np.uint64)
    cut["count"] = end - start
    cut["slot"] = start - first_slots[record] + new_first_slots[record]
    merged = np.concatenate((runs[~is_data], cut))
    return merged[np.argsort(merged["first_block"], kind="stable")]
