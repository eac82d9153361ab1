# SPDX-License-Identifier: Apache-2.0
"""Which slots the cut records of an index still have, by index entry.

Memory  8 bytes a cut record, 12 a run of slots that is there; nothing for whole records.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import Flags, expand_ranges
from deltaimg.format.cut_entries import CutEntries
from deltaimg.format.slot_runs import SLOT_RUN, SlotRuns
from deltaimg.ids import EntryNumbers

_SLOT_BITS = 16


class CutSlots:
    """The slots that are there, of each entry that is cut. Every other entry has all of its slots."""

    def __init__(self, parts: Sequence[tuple[int, CutEntries]], slots: npt.NDArray[np.uint16]) -> None:
        """Args: parts: of each index object, the number of its first entry here, and its cut records. slots: of each entry."""
        self._slots = slots
        cut = [(first, part) for first, part in parts if len(part.entries)]
        empty = np.empty(0, np.int64)
        self.entries = EntryNumbers(np.concatenate([empty, *(part.entries + first for first, part in cut)]))
        """Those that are cut, ascending."""
        self._run_counts = np.concatenate([empty, *(part.run_counts for _, part in cut)])
        self._run_starts = np.cumsum(self._run_counts) - self._run_counts
        self._runs = np.concatenate([np.empty(0, SLOT_RUN), *(part.runs for _, part in cut)])
        self._keys = self._key(np.repeat(np.arange(len(self.entries)), self._run_counts), self._runs["first_slot"])

    def __len__(self) -> int:
        return len(self.entries)

    def is_cut(self, entries: EntryNumbers) -> Flags:
        """Return which of `entries` lack slots."""
        return self._find(entries) >= 0

    def have(self, entries: EntryNumbers, firsts: npt.NDArray[np.integer], counts: npt.NDArray[np.integer]) -> Flags:
        """Return for slots [first, first + count) of each of `entries` whether all of them are there."""
        found = np.ones(len(entries), np.bool_)
        places = self._find(entries)
        cut = np.flatnonzero(places >= 0)
        if len(cut):
            keys = self._key(places[cut], firsts[cut])
            runs = np.searchsorted(self._keys, keys, side="right") - 1
            ends = self._keys[runs] + self._runs["count"][runs]
            found[cut] = (runs >= self._run_starts[places[cut]]) & (keys + counts[cut] <= ends)
        return found

    def have_all(self, entries: EntryNumbers, runs: SlotRuns, run_counts: npt.NDArray[np.integer]) -> Flags:
        """Return of each of `entries` whether the slots of its runs are there; `run_counts` says how many runs each has."""
        have = self.have(EntryNumbers(np.repeat(entries, run_counts)), runs["first_slot"], runs["count"])
        have_all: Flags = np.logical_and.reduceat(have, np.cumsum(run_counts) - run_counts)
        return have_all

    def count(self, entries: EntryNumbers) -> npt.NDArray[np.int64]:
        """Return how many slots each of `entries` has."""
        counts = self._slots[entries].astype(np.int64)
        places = self._find(entries)
        cut = np.flatnonzero(places >= 0)
        if len(cut):
            sums = np.add.reduceat(self._runs["count"].astype(np.int64), self._run_starts)
            counts[cut] = sums[places[cut]]
        return counts

    def runs_of(self, entries: EntryNumbers) -> tuple[SlotRuns, npt.NDArray[np.int64]]:
        """Return the runs of slots that `entries` have, one entry's after another's, and how many runs each has."""
        places = self._find(entries)
        cut = places >= 0
        run_counts = np.ones(len(entries), np.int64)
        run_counts[cut] = self._run_counts[places[cut]]
        runs = np.zeros(int(run_counts.sum()), SLOT_RUN)
        firsts = np.cumsum(run_counts) - run_counts
        runs["count"][firsts[~cut]] = self._slots[entries[~cut]]
        into = expand_ranges(firsts[cut], run_counts[cut])
        runs[into] = self._runs[expand_ranges(self._run_starts[places[cut]], run_counts[cut])]
        return runs, run_counts

    def extract(self, entries: EntryNumbers) -> CutEntries:
        """Return the cut records among `entries`, as an index object of these entries lists them."""
        numbers = np.flatnonzero(self.is_cut(entries))
        runs, run_counts = self.runs_of(entries[numbers])
        return CutEntries(numbers.astype(np.uint32), run_counts.astype(np.uint16), runs)

    def _find(self, entries: EntryNumbers) -> npt.NDArray[np.int64]:
        """Return the place of each entry among those that are cut, -1 for a whole one."""
        if not len(self.entries):
            return np.full(len(entries), -1, np.int64)
        places = np.minimum(np.searchsorted(self.entries, entries), len(self.entries) - 1)
        return np.where(self.entries[places] == entries, places, -1)

    @staticmethod
    def _key(places: npt.NDArray[np.int64], slots: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """Return a number that orders slots of cut entries by entry, then by slot."""
        return (places << _SLOT_BITS) + slots
