# SPDX-License-Identifier: Apache-2.0
"""Numbers for records and for their slots, in order of first use. 0 is a hole and 1 zero, as everywhere.

Memory  32 bytes a record.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.arrays import DIGEST_BYTES, FIRST_SLOT, RUN, Digests, Runs, expand_ranges
from deltaimg.errors import UsageError
from deltaimg.format.map import RUN_MEMORY_BYTES, MapObject
from deltaimg.ids import RecordNumbers, SlotNumbers
from deltaimg.memory import check_room

MAX_SLOTS = 2**32 - 2**20
_PIECE_RUNS = 1 << 16
"""Runs that are handled at a time."""


class RecordNumbering:
    """Records and their slots, numbered without a gap."""

    def __init__(self) -> None:
        self.slot_count = FIRST_SLOT
        self._ids: Digests = np.empty((0, DIGEST_BYTES), np.uint8)
        self._first_slots = SlotNumbers(np.empty(0, np.int64))
        self._slot_counts = np.empty(0, np.int64)

    @property
    def record_count(self) -> int:
        """Records that were numbered so far."""
        return len(self._slot_counts)

    @property
    def record_ids(self) -> Digests:
        """The id of each record; shape (records, 16)."""
        return self._ids

    @property
    def first_slots(self) -> SlotNumbers:
        """The first slot of each record, ascending; the record after starts where this one ends."""
        return self._first_slots

    @property
    def slot_counts(self) -> npt.NDArray[np.int64]:
        """Slots of each record."""
        return self._slot_counts

    def records_of(self, slots: npt.NDArray[np.generic]) -> RecordNumbers:
        """Return the record number of each data slot."""
        return RecordNumbers(np.searchsorted(self._first_slots, slots, side="right") - 1)

    def used_records(self, runs: Runs) -> RecordNumbers:
        """Return the numbers of the records that the data runs among `runs` touch, ascending."""
        data = runs[runs["slot"] >= FIRST_SLOT]
        if not len(data):
            return RecordNumbers(np.empty(0, np.int64))
        depth = np.zeros(self.record_count + 1, np.int64)
        np.add.at(depth, self.records_of(data["slot"]), 1)
        np.add.at(depth, self.records_of(data["slot"] + (data["count"] - 1)) + 1, -1)
        return RecordNumbers(np.flatnonzero(np.cumsum(depth)))

    def cut_at_records(self, runs: Runs, name: str) -> Runs:
        """Return runs, which count slots as this numbering does, none across two records; raises as `renumber_runs`."""
        firsts = self._first_slots
        return _cut(runs, _Stretches(firsts, firsts + self._slot_counts, np.zeros(len(firsts), np.int64)), name)

    def _check_room(self, counts: npt.NDArray[np.int64]) -> None:
        if self.slot_count + int(counts.sum()) > MAX_SLOTS:
            raise UsageError(
                f"more than {MAX_SLOTS} blocks are needed at a time",
                hint="use larger blocks: 'backup --block-size 64K'",
            )

    def _append_numbers(self, ids: Digests, counts: npt.NDArray[np.int64]) -> None:
        self._ids = np.concatenate((self._ids, ids))
        firsts = self.slot_count + np.cumsum(counts) - counts
        self._first_slots = SlotNumbers(np.concatenate((self._first_slots, firsts)))
        self._slot_counts = np.concatenate((self._slot_counts, counts))
        self.slot_count += int(counts.sum())


class LayerNumbering(RecordNumbering):
    """The records of one map layer, numbered as the layer does it."""

    def __init__(self, layer: MapObject) -> None:
        super().__init__()
        self._append_numbers(layer.record_ids, layer.record_slots.astype(np.int64))


class _Stretches(Struct, frozen=True):
    """Stretches of slots in which no run is cut: where they begin, ascending, and end, and what is added to their slots."""

    first_slots: npt.NDArray[np.int64]
    end_slots: npt.NDArray[np.int64]
    shifts: npt.NDArray[np.int64]

    def of(self, slots: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the number of the stretch that each slot is in."""
        return np.searchsorted(self.first_slots, slots, side="right") - 1


def renumber_runs(
    runs: Runs,
    first_slots: SlotNumbers,
    slot_counts: npt.NDArray[np.int64],
    new_first_slots: npt.NDArray[np.int64],
    name: str,
) -> Runs:
    """Move data runs from one numbering of records to another, cutting them where neighbours part.

    Args:
        first_slots: of each record in the old numbering, ascending. Every data run must lie within these records.
        new_first_slots: of the same records in the new one.
        name: of what the runs are of, for errors.

    Raises:
        MemoryLimitReached: there are more pieces than there may be.
    """
    if not len(first_slots):
        return runs.copy()
    shifts, ends = new_first_slots - first_slots, first_slots + slot_counts
    parts = np.ones(len(first_slots), np.bool_)
    parts[1:] = (ends[:-1] != first_slots[1:]) | (shifts[:-1] != shifts[1:])
    firsts = np.flatnonzero(parts)
    lasts = np.append(firsts[1:], len(first_slots)) - 1
    return _cut(runs, _Stretches(first_slots[firsts], ends[lasts], shifts[firsts]), name)


def list_named_slots(
    runs: Runs, first_slots: SlotNumbers, slot_counts: npt.NDArray[np.integer]
) -> Iterator[tuple[RecordNumbers, npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Yield the slots that data runs name, some at a time, each slot once: records, first slot in each, and length.

    However often runs name the same slots, there are no more of these pieces than runs and records together.

    Args:
        first_slots: of each record in the numbering of `runs`, ascending and without a gap.
    """
    starts, ends = _unite(runs[runs["slot"] >= FIRST_SLOT])
    for first in range(0, len(starts), _PIECE_RUNS):
        slots, slot_ends = starts[first : first + _PIECE_RUNS], ends[first : first + _PIECE_RUNS]
        first_records = np.searchsorted(first_slots, slots, side="right") - 1
        pieces = np.searchsorted(first_slots, slot_ends - 1, side="right") - first_records
        records, of_run = expand_ranges(first_records, pieces), np.repeat(np.arange(len(slots)), pieces)
        begins = np.maximum(slots[of_run], first_slots[records])
        stops = np.minimum(slot_ends[of_run], first_slots[records] + slot_counts[records])
        yield RecordNumbers(records), begins - first_slots[records], stops - begins


def _unite(data: Runs) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return first slot and end of each longest stretch of slots that data runs name, ascending."""
    slots = data["slot"].astype(np.int64)
    order = np.argsort(slots)
    slots, ends = slots[order], (slots + data["count"])[order]
    reached = np.maximum.accumulate(ends)
    begins = np.ones(len(slots), np.bool_)
    begins[1:] = slots[1:] > reached[:-1]
    firsts = np.flatnonzero(begins)
    return slots[firsts], reached[np.append(firsts[1:], len(slots)) - 1] if len(firsts) else reached


def _cut(runs: Runs, stretches: _Stretches, name: str) -> Runs:
    """Cut data runs where stretches part, and shift each piece; runs of holes and zeros, and the order, stay as they are."""
    counts = np.concatenate([np.empty(0, np.int64), *(_count_pieces(part, stretches) for part in _split(runs))])
    total = int(counts.sum())
    check_room(name, total * RUN_MEMORY_BYTES)
    cut = np.empty(total, RUN)
    done = 0
    for number, part in enumerate(_split(runs)):
        of_part = counts[number * _PIECE_RUNS :][: len(part)]
        length = int(of_part.sum())
        _fill_pieces(cut[done : done + length], part, of_part, stretches)
        done += length
    return cut


def _split(runs: Runs) -> Iterator[Runs]:
    """Yield some runs at a time, so that temporary arrays stay small."""
    return (runs[first : first + _PIECE_RUNS] for first in range(0, len(runs), _PIECE_RUNS))


def _count_pieces(runs: Runs, stretches: _Stretches) -> npt.NDArray[np.int64]:
    """Return into how many pieces each run is cut."""
    counts = np.ones(len(runs), np.int64)
    is_data = runs["slot"] >= FIRST_SLOT
    slots = runs["slot"][is_data].astype(np.int64)
    counts[is_data] = stretches.of(slots + runs["count"][is_data] - 1) - stretches.of(slots) + 1
    return counts


def _fill_pieces(cut: Runs, runs: Runs, counts: npt.NDArray[np.int64], stretches: _Stretches) -> None:
    """Put the pieces of runs into `cut`; `counts` are how many each run has."""
    of_run = np.repeat(np.arange(len(runs)), counts)
    cut[:] = runs[of_run]
    is_data = cut["slot"] >= FIRST_SLOT
    data = runs[of_run[is_data]]
    slots, firsts = data["slot"].astype(np.int64), np.cumsum(counts) - counts
    numbers = stretches.of(slots) + (np.arange(len(cut)) - firsts[of_run])[is_data]
    starts = np.maximum(slots, stretches.first_slots[numbers])
    cut["first_block"][is_data] = data["first_block"] + (starts - slots).astype(np.uint64)
    cut["count"][is_data] = np.minimum(slots + data["count"], stretches.end_slots[numbers]) - starts
    cut["slot"][is_data] = starts + stretches.shifts[numbers]
