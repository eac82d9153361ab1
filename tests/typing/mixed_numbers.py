# SPDX-License-Identifier: Apache-2.0
"""What the type checker must refuse, by `# refused`, and what it must not. Not run."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import distinct
from deltaimg.ids import EntryNumber, EntryNumbers, RecordNumbers, SlotNumbers
from deltaimg.repo.slots import SlotTable


def use(
    table: SlotTable, entries: EntryNumbers, records: RecordNumbers, plain: npt.NDArray[np.int64], slots: SlotNumbers
) -> None:
    table.add_entries(entries)
    table.add_entries(entries[entries >= 0])
    table.add_entries(distinct(entries, entries[1:]))
    table.depths_of(table.add_entries(EntryNumbers(plain)))
    numbers: list[EntryNumber] = entries.tolist()
    table.add_entries(records)  # refused
    table.add_entries(plain)  # refused
    table.add_entries(np.flatnonzero(plain))  # refused
    table.add_entries(EntryNumbers(entries + 1)[0:1])
    table.add_sources(entries)  # refused
    table.depths_of(slots)  # refused
    table.pack_of(numbers[0])  # refused
    table.pack_of(3)  # refused
    table.pack_of(records.tolist()[0])
