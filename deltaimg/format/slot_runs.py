# SPDX-License-Identifier: Apache-2.0
"""Runs of slots of a record: those that a delta is encoded against, and those that a cut record still has."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from deltaimg.format.limits import MAX_RECORD_SLOTS

SLOT_RUN: Final = np.dtype([("first_slot", "<u2"), ("count", "<u2")])
"""Consecutive slots of one record; count is at least 1."""

SlotRuns = npt.NDArray[np.void]
"""One-dimensional, of `SLOT_RUN`; those of one record in order and without overlap."""


def find_runs_problem(run_counts: npt.NDArray[np.uint16], runs: SlotRuns, *, are_apart: bool = False) -> str | None:
    """Return what is wrong with the runs of some records, one record's after another's, or None.

    Args:
        run_counts: runs of each record.
        are_apart: runs of one record may not touch, so that each set of slots is written in one way only.
    """
    if len(run_counts) and int(run_counts.min()) == 0:
        return "a record has no runs of slots"
    if not len(runs):
        return None
    ends = runs["first_slot"].astype(np.uint32) + runs["count"]
    if int(runs["count"].min()) == 0 or int(ends.max()) > MAX_RECORD_SLOTS:
        return "a run of slots is empty or lies outside any record"
    begins_record = np.zeros(len(runs), np.bool_)
    begins_record[np.cumsum(run_counts, dtype=np.int64) - run_counts] = True
    if bool(np.any((runs["first_slot"][1:] < ends[:-1] + are_apart) & ~begins_record[1:])):
        return "runs of slots overlap or are out of order"
    return None
