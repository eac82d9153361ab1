# SPDX-License-Identifier: Apache-2.0
"""What the delta records of an index are encoded against: from each record to the slots of others, and the depth of the chains.

Memory  9 bytes an entry, 8 a link and 4 a run of slots. A delta of 1,000 records has about 40,000 links.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import expand_ranges
from deltaimg.format.index import SourceLinks, no_links
from deltaimg.format.limits import MAX_DELTA_DEPTH
from deltaimg.format.slot_runs import SLOT_RUN
from deltaimg.format.sources import SourceTable, build_sources
from deltaimg.ids import EntryNumber, EntryNumbers, LinkNumbers
from deltaimg.repo.cut_slots import CutSlots
from deltaimg.repo.record_lookup import RecordLookup


class Links:
    """What delta records are encoded against, in entry numbers; link numbers [starts[e], starts[e + 1]) are entry e's."""

    def __init__(
        self, lookup: RecordLookup, parts: list[SourceLinks], slots: npt.NDArray[np.uint16], cuts: CutSlots
    ) -> None:
        """Args: slots: of each entry."""
        self._lookup, self._slots = lookup, slots
        self.counts = _join((part.link_counts for part in parts), np.int32)
        self.starts = _start_each(self.counts)
        self.entries = _join((lookup.find(part.ids)[part.places] for part in parts if len(part.places)), np.int32)
        """The source entry of each link, -1 where the index does not have it."""
        self.run_starts = _start_each(_join((part.run_counts for part in parts), np.int32))
        """Runs [run_starts[k], run_starts[k + 1]) are those of link k."""
        self.runs = _join((part.runs.view("V4") for part in parts), "V4").view(SLOT_RUN)
        """The slots taken from each source, of `SLOT_RUN`."""
        if len(cuts):
            self._avoid_absent(cuts)

    def of(self, entries: EntryNumbers) -> LinkNumbers:
        """Return the numbers of all links of `entries`, entry after entry."""
        return LinkNumbers(expand_ranges(self.starts[entries], self.counts[entries]))

    def sources_of(self, entries: EntryNumbers) -> EntryNumbers:
        """Return the source entry of each link of `entries`, -1 where the index does not have it."""
        return EntryNumbers(self.entries[self.of(entries)].astype(np.int64))

    def runs_of(self, entries: EntryNumbers) -> tuple[npt.NDArray[np.void], npt.NDArray[np.integer]]:
        """Return the runs of all links of `entries`, link after link, and how many each link has."""
        links = self.of(entries)
        counts = self._run_counts_of(links)
        return self.runs[expand_ranges(self.run_starts[links], counts)], counts

    def extract(self, entries: EntryNumbers) -> SourceLinks:
        """Return the sources of `entries`, all of which the index has, as an index object of theirs says them."""
        links = self.of(entries)
        if not len(links):
            return no_links(len(entries))
        ids, places = np.unique(self._lookup.ids[self.entries[links]], axis=0, return_inverse=True)
        runs, run_counts = self.runs_of(entries)
        return SourceLinks(
            ids,
            self.counts[entries].astype(np.uint16),
            places.reshape(-1).astype(np.uint32),
            run_counts.astype(np.uint16),
            runs,
        )

    def table_of(self, entry: EntryNumber) -> bytes:
        """Return the table of sources that an entry's record must begin with, empty for a literal."""
        first, last = int(self.starts[entry]), int(self.starts[entry + 1])
        if first == last:
            return b""
        run_starts = self.run_starts[first : last + 1]
        ids = self._lookup.ids[self.entries[first:last]]
        counts = np.diff(run_starts).astype(np.uint16)
        return build_sources(SourceTable(ids, counts, self.runs[run_starts[0] : run_starts[-1]]))

    @cached_property
    def depths(self) -> npt.NDArray[np.int8]:
        """How many records must be decoded one after another before each entry can be: 0 for a literal.

        -1 where sources are missing or lie outside their record, form a cycle, or a chain is deeper than `MAX_DELTA_DEPTH`.
        """
        sources = np.where(self._are_inside(), self.entries, -1)
        return measure_depths(self.counts, self.starts, sources)

    def _avoid_absent(self, cuts: CutSlots) -> None:
        """Where a source lacks slots that are taken from it, link to another copy of the record that has them, or to none."""
        links = LinkNumbers(np.flatnonzero(cuts.is_cut(EntryNumbers(self.entries.astype(np.int64)))))
        if not len(links):
            return

        def have_all(numbers: npt.NDArray[np.int64], entries: EntryNumbers) -> npt.NDArray[np.bool_]:
            starts, counts = self.run_starts[links[numbers]], self._run_counts_of(links[numbers])
            return cuts.have_all(entries, self.runs[expand_ranges(starts, counts)], counts)

        self.entries[links] = self._lookup.find_best(self._lookup.ids[self.entries[links]], have_all)

    def _run_counts_of(self, links: LinkNumbers) -> npt.NDArray[np.integer]:
        counts: npt.NDArray[np.integer] = self.run_starts[links + 1] - self.run_starts[links]
        return counts

    def _are_inside(self) -> npt.NDArray[np.bool_]:
        """Return for each link whether its source record has the slots that are taken from it."""
        if not len(self.entries):
            return np.empty(0, np.bool_)
        ends = self.runs["first_slot"].astype(np.uint32) + self.runs["count"]
        is_inside: npt.NDArray[np.bool_] = (
            np.maximum.reduceat(ends, self.run_starts[:-1]) <= self._slots[np.maximum(self.entries, 0)]
        )
        return is_inside


def measure_depths(
    counts: npt.NDArray[np.integer], starts: npt.NDArray[np.integer], sources: npt.NDArray[np.signedinteger[Any]]
) -> npt.NDArray[np.int8]:
    """Return the depth of each entry, as `Links.depths`.

    Args:
        counts, starts: the links of entry e are starts[e] to starts[e] + counts[e].
        sources: the entry that each link means, or -1.
    """
    depths = np.full(len(counts), -1, np.int8)
    depths[counts == 0] = 0
    waiting = np.flatnonzero(counts)
    for _ in range(MAX_DELTA_DEPTH):
        if not len(waiting):
            break
        found = sources[expand_ranges(starts[waiting], counts[waiting])]
        found = np.where(found >= 0, depths[np.maximum(found, 0)], -1)
        firsts = np.cumsum(counts[waiting]) - counts[waiting]
        is_ready = np.minimum.reduceat(found, firsts) >= 0
        if not is_ready.any():
            break
        depths[waiting[is_ready]] = np.maximum.reduceat(found, firsts)[is_ready] + 1
        waiting = waiting[~is_ready]
    return depths


def find_sound(lookup: RecordLookup, links: Links, is_first_choice: npt.NDArray[np.bool_]) -> EntryNumbers:
    """Return for each record the entry that can be decoded with the fewest others before it, if any can.

    Concurrent runs may have stored one record against different others, and these against it in turn.
    The entries must then be chosen so that no record depends on itself.
    """
    firsts = lookup.firsts
    chosen = np.full(len(firsts), -1, np.int64)  # of each record, under the entry that is found first
    for allowed in (is_first_choice, np.ones(len(firsts), np.bool_)):
        for _ in range(MAX_DELTA_DEPTH):
            waiting = np.flatnonzero(allowed & (chosen[firsts] < 0))
            is_ready = np.ones(len(waiting), np.bool_)
            deltas = np.flatnonzero(links.counts[waiting])
            if len(deltas):
                sources = links.entries[links.of(EntryNumbers(waiting[deltas]))]
                found = (sources >= 0) & (chosen[firsts[np.maximum(sources, 0)]] >= 0)
                counts = links.counts[waiting[deltas]]
                is_ready[deltas] = np.logical_and.reduceat(found, np.cumsum(counts) - counts)
            ready = waiting[is_ready]
            if not len(ready):
                break
            chosen[firsts[ready]] = ready
    return EntryNumbers(chosen[chosen >= 0])


def _join(parts: Iterable[npt.NDArray[Any]], kind: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return arrays one after another, of one kind."""
    return np.concatenate([np.empty(0, kind), *(part.astype(kind) for part in parts)])


def _start_each(counts: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Return where each run of `counts` begins, and where the last ends; memory is exhausted long before int32 overflows."""
    starts = np.zeros(len(counts) + 1, np.int32)
    np.cumsum(counts, out=starts[1:])
    return starts
