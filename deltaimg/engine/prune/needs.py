# SPDX-License-Identifier: Apache-2.0
"""Which slots of each record are needed: by maps of snapshots, or as delta sources of needed records.

Where one of several copies of a record has all that is needed of it, the others are not.

Memory  two bits a slot, and 3 bytes a record; 4 more where any record lies in several places.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.arrays import Flags
from deltaimg.ids import EntryNumber, EntryNumbers, LinkNumbers
from deltaimg.repo.index import LoadedIndex
from deltaimg.repo.reachability import SlotBits

_PIECE = 4096
"""Deltas whose sources are handled at a time."""
_ROUNDS = 4

Numbers = npt.NDArray[np.int64]


class Mapped(Struct, frozen=True):
    """The slots that snapshots name, by index entry."""

    bits: SlotBits
    slots: npt.NDArray[np.uint16]
    """How many of each entry."""
    copies: npt.NDArray[np.int32] | None
    """For each entry, the entry of the same record that is used instead; None if every entry is used itself."""

    def resolve(self, entries: EntryNumbers) -> EntryNumbers:
        """Return the entries that are used in the place of `entries`."""
        return entries if self.copies is None else EntryNumbers(self.copies[entries].astype(np.int64))


class Needs(Struct, frozen=True):
    """All slots that are needed, by index entry."""

    bits: SlotBits
    slots: npt.NDArray[np.uint16]
    """How many of each entry; 0 of one that is not needed at all."""
    mapped: Mapped

    def list_needed(self, entry: EntryNumber) -> Numbers:
        """Return the slots of an entry that are needed, ascending."""
        return np.flatnonzero(self.bits.of(entry))

    def may_be_sources(self, entries: EntryNumbers, within: Numbers) -> Flags:
        """Return of slot `within` of each of `entries` whether it is needed."""
        is_needed: Flags = self.count_in(entries, within, np.ones(len(entries), np.int64)) > 0
        return is_needed

    def count_in(self, entries: EntryNumbers, firsts: Numbers, counts: Numbers) -> Numbers:
        """Return how many of slots [first, first + count) of each of `entries`, or of what is used in its place, are needed."""
        return self.bits.count_in(self.mapped.resolve(entries), firsts, counts)


class SourceRuns(Struct, frozen=True):
    """The runs of slots that some deltas are encoded against, run after run."""

    links: LinkNumbers
    """The number of the link of each run."""
    entries: EntryNumbers
    """The entry that each run is taken from."""
    firsts: Numbers
    counts: Numbers


def list_source_runs(index: LoadedIndex, deltas: EntryNumbers) -> Iterator[SourceRuns]:
    """Yield the sources of deltas, some deltas at a time."""
    links = index.links
    for first in range(0, len(deltas), _PIECE):
        numbers = links.of(deltas[first : first + _PIECE])
        runs, run_counts = links.runs_of(deltas[first : first + _PIECE])
        of_run = np.repeat(numbers, run_counts)
        firsts, counts = runs["first_slot"].astype(np.int64), runs["count"].astype(np.int64)
        yield SourceRuns(LinkNumbers(of_run), EntryNumbers(links.entries[of_run].astype(np.int64)), firsts, counts)


def find_needs(index: LoadedIndex, mapped: Mapped, is_exempt: Flags | None = None) -> Needs:
    """Return what is needed; every delta that is must be sound.

    Args:
        is_exempt: deltas that will be encoded again, against those of their sources that are needed otherwise.
    """
    bits = mapped.bits.copy()
    is_live = mapped.slots > 0
    depths = index.links.depths
    for depth in range(int(depths.max(initial=0)), 0, -1):
        deltas = np.flatnonzero((depths == depth) & is_live)
        if is_exempt is not None:
            deltas = deltas[~is_exempt[deltas]]
        for runs in list_source_runs(index, EntryNumbers(deltas)):
            entries = mapped.resolve(runs.entries)
            bits.mark(entries, runs.firsts, runs.counts)
            is_live[entries] = True
    return Needs(bits, bits.count(), mapped)


def find_source_slots(index: LoadedIndex, needs: Needs, is_exempt: Flags) -> SlotBits:
    """Return the slots that needed deltas are encoded against, but for those that are exempt, as of `find_needs`."""
    bits = SlotBits(index.entries["slots"])
    deltas = np.flatnonzero((needs.slots > 0) & (index.links.counts > 0) & ~is_exempt)
    for runs in list_source_runs(index, EntryNumbers(deltas)):
        bits.mark(needs.mapped.resolve(runs.entries), runs.firsts, runs.counts)
    return bits


def choose_copies(index: LoadedIndex, bits: SlotBits) -> Mapped:
    """Return what snapshots name, in as few copies of each record as have all of it.

    Args:
        bits: the slots that snapshots name, of whatever copies the index finds.
    """
    mapped = Mapped(bits, bits.count(), None)
    groups = [group for group in index.list_copies() if not index.is_pending[group[0]]]
    for _ in range(_ROUNDS if groups else 0):
        better = _find_better(index, groups, find_needs(index, mapped))
        if not better:
            break
        copies = np.arange(len(index), dtype=np.int32) if mapped.copies is None else mapped.copies.copy()
        moved = mapped.bits.copy()
        for entry, chosen in better.items():
            moved.move(entry, chosen)
            copies[copies == entry] = chosen
        mapped = Mapped(moved, moved.count(), copies)
    rivals = _list_rivals(index, groups)
    if not len(rivals):
        return mapped
    kept = mapped.bits.copy()
    runs, run_counts = index.cuts.runs_of(rivals)
    kept.mark(
        EntryNumbers(np.repeat(rivals, run_counts)), runs["first_slot"].astype(np.int64), runs["count"].astype(np.int64)
    )
    return Mapped(kept, kept.count(), mapped.copies)


def _list_rivals(index: LoadedIndex, groups: list[list[int]]) -> EntryNumbers:
    """Return the entries of records that several write-only hosts claim to have, and no holder of the secret.

    One of them may claim it so that the other's is deleted: each keeps its own.
    """
    found = [
        entry
        for group in groups
        if index.is_by_host[group[0]] and len({index.hosts[index.object_of[entry]] for entry in group}) > 1
        for entry in group
        if not index.is_pending[entry] and not index.is_missing[entry] and index.links.depths[entry] >= 0
    ]
    return EntryNumbers(np.array(sorted(found), np.int64))


def _find_better(index: LoadedIndex, groups: list[list[int]], needs: Needs) -> dict[int, int]:
    """Return entries that are needed beside others of the same record, and the one that has all that is needed of them."""
    better: dict[int, int] = {}
    for group in groups:
        used = [entry for entry in group if needs.slots[entry]]
        if len(used) < 2:
            continue
        slots = np.flatnonzero(np.logical_or.reduce([needs.bits.of(entry) for entry in used]))
        for entry in group:
            is_whole = index.cuts.have(
                EntryNumbers(np.full(len(slots), entry)), slots, np.ones(len(slots), np.int64)
            ).all()
            if is_whole and not index.is_pending[entry] and not index.is_missing[entry]:
                better |= {other: entry for other in used if other != entry}
                break
    return better
