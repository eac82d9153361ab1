# SPDX-License-Identifier: Apache-2.0
"""Which entries of an index object are of cut records, and which slots these still have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.format.record import CutTable
from deltaimg.format.slot_runs import SLOT_RUN, SlotRuns, find_runs_problem


class CutEntries(Struct, frozen=True):
    """The cut records of an index object; the slots of all others are there."""

    entries: npt.NDArray[np.uint32]
    """Their numbers in the object, ascending."""
    run_counts: npt.NDArray[np.uint16]
    """Runs of each."""
    runs: SlotRuns
    """Of the slots that are there, one entry's after another's."""


def no_cuts() -> CutEntries:
    """Return what an index object of whole records has."""
    return CutEntries(np.empty(0, np.uint32), np.empty(0, np.uint16), np.empty(0, SLOT_RUN))


def list_cuts(tables: Sequence[CutTable | None]) -> CutEntries:
    """Join the tables of records in their order, None for a whole one."""
    cut = [(number, table.runs) for number, table in enumerate(tables) if table is not None]
    if not cut:
        return no_cuts()
    return CutEntries(
        np.array([number for number, _ in cut], np.uint32),
        np.array([len(runs) for _, runs in cut], np.uint16),
        np.concatenate([runs for _, runs in cut]),
    )


def find_cuts_problem(cuts: CutEntries, slots: npt.NDArray[np.uint16]) -> str | None:
    """Return what is wrong with the cut records of an index object, or None.

    Args:
        slots: of each of its entries.
    """
    if not len(cuts.entries):
        return None
    numbers = cuts.entries.astype(np.int64)
    if int(numbers[-1]) >= len(slots) or bool(np.any(np.diff(numbers) <= 0)):
        return "cut records are out of order or are not listed"
    if problem := find_runs_problem(cuts.run_counts, cuts.runs, are_apart=True):
        return f"of a cut record {problem}"
    lasts = np.cumsum(cuts.run_counts, dtype=np.int64) - 1
    ends = cuts.runs["first_slot"][lasts].astype(np.int64) + cuts.runs["count"][lasts]
    kept = np.add.reduceat(cuts.runs["count"].astype(np.int64), lasts - cuts.run_counts + 1)
    if bool(np.any(ends > slots[numbers])) or bool(np.any(kept >= slots[numbers])):
        return "a cut record has slots outside it, or all of them"
    return None
