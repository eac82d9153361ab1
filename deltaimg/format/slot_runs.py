# SPDX-License-Identifier: Apache-2.0
"""Runs of slots of a record: those that a delta is encoded against, and those that a cut record still has.

In records they are coded a byte each, as few slots lie between most of them and few slots are in most of them:

    runs   := u16 run_count tokens gaps counts
    tokens := u8 for each run: bit 7, it is its record's last; bits 2 to 6, the gap; bits 0 and 1, its slots less 1
    gaps   := u16 gap less 31, of each run whose token has gap 31
    counts := u16 slots less 4, of each run whose token has 3

The gap are the slots between a run and the one before in its record, or the beginning of the record. Every list of runs has one
coding only.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from deltaimg.format.limits import MAX_RECORD_SLOTS

SLOT_RUN: Final = np.dtype([("first_slot", "<u2"), ("count", "<u2")])
"""Consecutive slots of one record; count is at least 1."""

SlotRuns = npt.NDArray[np.void]
"""One-dimensional, of `SLOT_RUN`; those of one record in order and without overlap."""

_LAST = 1 << 7
_GAP_SHIFT = 2
_LONG_GAP, _LONG_COUNT = 31, 3
"""In a token: a word says how much more."""


def collect_runs(
    slots: npt.NDArray[np.int64], begins_record: npt.NDArray[np.bool_]
) -> tuple[SlotRuns, npt.NDArray[np.int64]]:
    """Return the runs of some slots, ascending in each record, and where in `slots` each run begins.

    Args:
        begins_record: of each slot, whether the one before is of another record.
    """
    starts = np.flatnonzero(begins_record | (np.diff(slots, prepend=-2) != 1))
    runs = np.empty(len(starts), SLOT_RUN)
    runs["first_slot"], runs["count"] = slots[starts], np.diff(np.append(starts, len(slots)))
    return runs, starts


def build_runs(run_counts: npt.NDArray[np.uint16], runs: SlotRuns) -> bytes:
    """Return the coding of the runs of some records, at least one run of each, one record's after another's."""
    firsts, counts = runs["first_slot"].astype(np.int64), runs["count"].astype(np.int64) - 1
    lasts = np.cumsum(run_counts, dtype=np.int64) - 1
    gaps = firsts.copy()
    gaps[1:] -= firsts[:-1] + counts[:-1] + 1
    gaps[lasts[:-1] + 1] = firsts[lasts[:-1] + 1]
    tokens = (np.minimum(gaps, _LONG_GAP) << _GAP_SHIFT | np.minimum(counts, _LONG_COUNT)).astype(np.uint8)
    tokens[lasts] |= _LAST
    words = np.concatenate((gaps[gaps >= _LONG_GAP] - _LONG_GAP, counts[counts >= _LONG_COUNT] - _LONG_COUNT))
    return len(runs).to_bytes(2, "little") + tokens.tobytes() + words.astype("<u2").tobytes()


def parse_runs(data: memoryview, record_count: int) -> tuple[npt.NDArray[np.uint16], SlotRuns, memoryview]:
    """Return the runs of each of `record_count` records (at least one), all runs, and what follows them in `data`.

    Raises:
        ValueError: what is wrong with them.
    """
    run_count = int.from_bytes(data[:2], "little")
    tokens_end = 2 + run_count
    if tokens_end > len(data) or run_count > MAX_RECORD_SLOTS:
        raise ValueError("there are more runs of slots than there is room for")
    tokens = np.frombuffer(data, np.uint8, run_count, 2)
    lasts = np.flatnonzero(tokens & _LAST)
    if not len(lasts) or len(lasts) != record_count or lasts[-1] != run_count - 1:
        raise ValueError(f"there are runs of slots of other than {record_count} records")
    gaps, counts = (tokens >> _GAP_SHIFT & _LONG_GAP).astype(np.int64), (tokens & _LONG_COUNT).astype(np.int64)
    long_gaps, long_counts = np.flatnonzero(gaps == _LONG_GAP), np.flatnonzero(counts == _LONG_COUNT)
    end = tokens_end + 2 * (len(long_gaps) + len(long_counts))
    if end > len(data):
        raise ValueError("there are longer runs of slots than there is room for")
    words = np.frombuffer(data, "<u2", len(long_gaps) + len(long_counts), tokens_end)
    gaps[long_gaps] += words[: len(long_gaps)]
    counts[long_counts] += words[len(long_gaps) :]
    counts += 1
    run_counts = np.diff(lasts, prepend=-1)
    ends = np.cumsum(gaps + counts)
    ends -= np.repeat(np.concatenate((np.zeros(1, np.int64), ends[lasts[:-1]])), run_counts)
    if int(ends.max()) > MAX_RECORD_SLOTS:
        raise ValueError("a run of slots lies outside any record")
    runs = np.empty(run_count, SLOT_RUN)
    runs["first_slot"], runs["count"] = ends - counts, counts
    return run_counts.astype(np.uint16), runs, data[end:]


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
