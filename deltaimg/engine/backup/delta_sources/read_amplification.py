# SPDX-License-Identifier: Apache-2.0
"""Restore read amplification of the snapshot in the making: bytes that a restore decodes for each byte it writes.

To decode a delta, its sources must be decoded, though the image may not need them any more, and the sources of those. While
read amplification is within its bound, records may be as deep as delta depth allows; beyond it, the less deep the further
beyond, so that what has changed most often, and would need most, becomes a literal again first.

Memory  1 byte for each stored record.
"""

from __future__ import annotations

import numpy as np

from deltaimg.arrays import Runs
from deltaimg.ids import RecordNumbers
from deltaimg.repo.slots import SlotTable

_STEEPNESS = 2
"""At one and a half times the bound only literals may be delta sources."""


class ReadAmplification:
    """Counts in blocks. Which records of the base the image no longer needs is not known yet, so it counts too many."""

    def __init__(self, table: SlotTable, base_runs: Runs, bound: float) -> None:
        """Start with what the base needs.

        Args:
            table: has whatever may become a delta source, and the sources of that.
            bound: bytes decoded for each byte of the records that hold the image, from which on depth is reduced.
        """
        self._table, self._bound = table, bound
        used = table.used_records(base_runs)
        self._is_needed = np.zeros(table.record_count, np.bool_)
        self._held_blocks = int(table.slot_counts[used].sum())
        self._decoded_blocks = 0
        self.note_sources(used)

    @property
    def ratio(self) -> float:
        """Bytes decoded for each byte of the records that hold the image, as far as it is known."""
        return self._decoded_blocks / max(1, self._held_blocks)

    def note_record(self, blocks: int) -> None:
        """Count a new record of this many blocks."""
        self._held_blocks += blocks
        self._decoded_blocks += blocks

    def bound_depth(self, most: int) -> int:
        """Return the delta depth allowed to the next record: `most` within the bound, never less than 1."""
        excess = max(0.0, self.ratio / self._bound - 1)
        return max(1, int(most * (1 - _STEEPNESS * excess)))

    def note_sources(self, records: RecordNumbers) -> None:
        """Count what a restore must also decode if `records` are sources; those of this backup are counted already."""
        old = records[records < len(self._is_needed)]
        if self._is_needed[old].all():
            return
        closure = self._table.add_sources(RecordNumbers(old))
        added = closure[~self._is_needed[closure]]
        self._is_needed[added] = True
        self._decoded_blocks += int(self._table.slot_counts[added].sum())
