# SPDX-License-Identifier: Apache-2.0
"""What a restore of the snapshot in the making will have to decode because of deltas, and the bound on that.

A delta needs its sources expanded, though the image may not have them any more, and the sources of those. While the bound
holds, records may stand as deep as deltas may; beyond it less deep, the further beyond: what has changed most often, and
would need most, is stored anew first.

Memory  1 byte a record.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import Runs
from deltaimg.repo.slots import SlotTable

_STEEPNESS = 2
"""At one and a half times the bound only literals are sources."""


class DeltaCost:
    """Counts in blocks. It does not know yet which records of the base will not be needed any more, and so counts too many."""

    def __init__(self, table: SlotTable, base_runs: Runs, bound: float) -> None:
        """Make one for a run.

        Args:
            table: has whatever may become a source, and the sources of that.
            bound: bytes decoded for each byte of the records that hold the image.
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
        """Count a new record of so many blocks."""
        self._held_blocks += blocks
        self._decoded_blocks += blocks

    def bound_depth(self, most: int) -> int:
        """Return how deep the next record may stand, `most` while the bound holds; literals may always be sources."""
        excess = max(0.0, self.ratio / self._bound - 1)
        return max(1, int(most * (1 - _STEEPNESS * excess)))

    def note_sources(self, records: npt.NDArray[np.int64]) -> None:
        """Count what a restore needs besides, now that it needs `records`; those of this run are counted already."""
        old = records[records < len(self._is_needed)]
        if self._is_needed[old].all():
            return
        closure = self._table.add_sources(old)
        added = closure[~self._is_needed[closure]]
        self._is_needed[added] = True
        self._decoded_blocks += int(self._table.slot_counts[added].sum())
