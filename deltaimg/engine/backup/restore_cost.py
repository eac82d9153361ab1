# SPDX-License-Identifier: Apache-2.0
"""What a restore of the snapshot in the making will have to decode for each byte that it writes, and the bound on that.

A delta needs its sources expanded, though the image may not have them any more. While the bound holds, any record may be a
source. Beyond it only those may that a restore expands anyhow: records of this run, and literals that the image still
uses for the most part.

Memory  2 bytes a record, 16 bytes a run of the base's map.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import FIRST_SLOT, Runs, count_run_blocks, distinct, end_blocks
from deltaimg.repo.index import expand_ranges
from deltaimg.repo.numbering import renumber_runs
from deltaimg.repo.slots import SlotTable


class RestoreCost:
    """Counts in blocks. It does not know yet which records of the base will not be needed any more, and so counts too many."""

    def __init__(self, table: SlotTable, base_runs: Runs, bound: float) -> None:
        """Args: bound: bytes decoded for each byte written."""
        self._table, self._bound = table, bound
        data = base_runs[base_runs["slot"] >= FIRST_SLOT]
        used = table.used_records(data)
        needed = distinct(used, table.add_sources(used))
        self._is_needed = np.zeros(table.record_count, np.bool_)
        self._is_needed[needed] = True
        self._decoded_blocks = int(table.slot_counts[needed].sum())
        self._written_blocks = count_run_blocks(data)
        self._firsts, self._ends = data["first_block"].astype(np.int64), end_blocks(data).astype(np.int64)
        cut = renumber_runs(data, table.first_slots, table.slot_counts, table.first_slots)
        used_blocks = np.bincount(table.records_of(cut["slot"]), weights=cut["count"], minlength=table.record_count)
        depths = table.index.links.depths[table.entries] if table.record_count else np.empty(0, np.int64)
        self._is_free = (depths == 0) & (2 * used_blocks >= table.slot_counts)

    @property
    def ratio(self) -> float:
        """Bytes decoded for each byte written, as far as it is known."""
        return self._decoded_blocks / max(1, self._written_blocks)

    def note_content(self, runs: Runs) -> None:
        """Count new content that is to stand at the blocks of `runs`."""
        blocks = expand_ranges(runs["first_block"].astype(np.int64), runs["count"].astype(np.int64))
        self._decoded_blocks += len(blocks)
        if len(self._firsts):
            places = np.searchsorted(self._firsts, blocks, side="right") - 1
            had_data = (places >= 0) & (blocks < self._ends[places])
            self._written_blocks += len(blocks) - int(had_data.sum())
        else:
            self._written_blocks += len(blocks)

    def allows(self, records: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Tell which records may be sources; numbers that the table does not have are those of new records."""
        is_new = records >= len(self._is_free)
        if self.ratio <= self._bound or not len(self._is_free):
            return np.ones(len(records), np.bool_)
        is_allowed: npt.NDArray[np.bool_] = is_new | self._is_free[np.where(is_new, 0, records)]
        return is_allowed

    def note_sources(self, records: npt.NDArray[np.int64]) -> None:
        """Count what a restore needs besides, now that `records` were chosen as sources."""
        old = distinct(records[records < len(self._is_needed)])
        old = old[~self._is_needed[old]]
        if not len(old):
            return
        closure = distinct(old, self._table.add_sources(old))
        added = closure[~self._is_needed[closure]]
        self._is_needed[added] = True
        self._decoded_blocks += int(self._table.slot_counts[added].sum())
