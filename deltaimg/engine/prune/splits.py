# SPDX-License-Identifier: Apache-2.0
"""Keep restore read amplification of each image's newest snapshot within its bound, without a change of maps or manifests.

A record of which the newest snapshots use little is stored again in two parts under its own id: the slots that they use, which
a restore of theirs then decodes alone, and the other slots that are needed. Of a delta the first part is encoded only against
literals of which such a snapshot uses most, or as a literal: what was stored again once need not be again.

Which records are split is chosen as a backup chooses what it stores again (`engine/content/rewrite_choice.py`).

Memory  a bit a slot; for each image the map of its newest snapshot, one at a time.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from msgspec import Struct

from deltaimg.arrays import FIRST_SLOT, Flags, Runs
from deltaimg.engine.content.restore_needs import RestoreNeeds
from deltaimg.engine.content.rewrite_choice import LEAST_USE, RewriteLimits, choose_rewritten
from deltaimg.engine.prune.needs import Mapped, Needs, Numbers, find_needs, find_source_slots
from deltaimg.engine.recode import RecodedPart
from deltaimg.format.manifest import Manifest
from deltaimg.ids import EntryNumber, EntryNumbers, RecordNumbers
from deltaimg.options.prune import PruneOptions
from deltaimg.repo.index import LoadedIndex
from deltaimg.repo.layers import resolve_map
from deltaimg.repo.numbering import list_named_slots
from deltaimg.repo.reachability import Reachable, SlotBits
from deltaimg.repo.repository import Repository
from deltaimg.repo.slots import SlotTable

_UNBOUNDED_BLOCKS = 2**40


class Splits(Struct, frozen=True):
    """Which records are split, and how."""

    entries: EntryNumbers
    """Ascending."""
    newest: SlotBits
    """The slots that newest snapshots use."""
    may_be_sources: Flags
    """Of each entry: whether what newest snapshots use may be encoded against it."""

    @classmethod
    def none(cls, index: LoadedIndex) -> Splits:
        """Return no splits at all."""
        nothing = SlotBits(np.zeros(0, np.uint16))
        return cls(EntryNumbers(np.empty(0, np.int64)), nothing, np.zeros(len(index), np.bool_))

    def find_whole(self, index: LoadedIndex, needs: Needs) -> EntryNumbers:
        """Return the split deltas of which newest snapshots use all that is needed: there is no second part of them."""
        if not len(self.entries):
            return self.entries
        used = self.newest.count()[self.entries]
        is_whole = (needs.slots[self.entries] == used) & (index.links.counts[self.entries] > 0)
        return EntryNumbers(self.entries[is_whole])

    def without(self, failed: Iterable[int]) -> Splits:
        """Return the same for fewer records."""
        kept = np.setdiff1d(self.entries, np.array(sorted(failed), np.int64))
        return Splits(EntryNumbers(kept), self.newest, self.may_be_sources)


def choose_splits(repository: Repository, reachable: Reachable, mapped: Mapped, options: PruneOptions) -> Splits:
    """Choose what brings the newest snapshot of every image within the bound, or as close as the budget permits.

    Raises:
        IntegrityError, SnapshotError, StoreError: a map cannot be read.
    """
    index, bound = reachable.index, options.max_read_amplification
    newest, beyond = SlotBits(index.entries["slots"]), []
    for manifest in _find_newest(reachable.manifests):
        table, runs = _resolve(repository, index, manifest)
        for records, firsts, counts in list_named_slots(runs, table.first_slots, table.slot_counts):
            newest.mark(mapped.resolve(EntryNumbers(table.entries[records])), firsts, counts)
        if RestoreNeeds(table, runs).ratio > bound:
            beyond.append(manifest)
    if not beyond:
        return Splits.none(index)
    may_go, used = _find_candidates(index, mapped, newest), newest.count().astype(np.int64)
    left_bytes, chosen = options.max_repack_bytes, np.zeros(len(index), np.bool_)
    may_be_sources = np.zeros(len(index), np.bool_)
    for manifest in beyond:
        table, runs = _resolve(repository, index, manifest)
        needs, block_bytes = RestoreNeeds(table, runs), manifest.block_bytes
        most = _UNBOUNDED_BLOCKS if left_bytes is None else left_bytes // block_bytes
        records = choose_rewritten(table, needs, used[table.entries], RewriteLimits(bound, most), may_go[table.entries])
        entries = table.entries[records]
        if left_bytes is not None:
            left_bytes -= int(used[entries[~chosen[entries]]].sum()) * block_bytes
        chosen[entries] = True
        may_be_sources[table.entries[_find_kept(table, needs)]] = True
    return Splits(EntryNumbers(np.flatnonzero(chosen)), newest, may_be_sources & ~chosen)


def _find_kept(table: SlotTable, needs: RestoreNeeds) -> Flags:
    """Return which records are good sources: literals of which the image uses most, which a restore goes on decoding."""
    depths = table.depths_of(RecordNumbers(np.arange(needs.stored_count)))
    is_kept: Flags = (depths == 0) & (needs.direct >= LEAST_USE * needs.record_blocks)
    return is_kept


def _find_newest(manifests: Iterable[Manifest]) -> list[Manifest]:
    """Return the newest snapshot of each image."""
    newest: dict[str, Manifest] = {}
    for manifest in manifests:
        if manifest.image not in newest or manifest.time > newest[manifest.image].time:
            newest[manifest.image] = manifest
    return list(newest.values())


def _resolve(repository: Repository, index: LoadedIndex, manifest: Manifest) -> tuple[SlotTable, Runs]:
    """Return the data runs of a snapshot's map, and a table of all records that it needs."""
    table = SlotTable(repository, index)
    runs = resolve_map(repository, manifest, table).runs
    runs = runs[runs["slot"] >= FIRST_SLOT]
    table.add_sources(table.used_records(runs))
    return table, runs


def _find_candidates(index: LoadedIndex, mapped: Mapped, newest: SlotBits) -> Flags:
    """Return which entries may be split.

    Not where another copy of the record is used in its place, and not where the second part would have all of the first, as
    what deltas need stays there: the next prune would take the first part for superfluous.
    """
    needs = find_needs(index, mapped)
    may_go: Flags = (needs.slots > 0) & ~index.is_pending
    may_go &= mapped.resolve(EntryNumbers(np.arange(len(index)))) == np.arange(len(index))
    sources = find_source_slots(index, needs, np.zeros(len(index), np.bool_))
    is_source, used = sources.count() > 0, newest.count()
    for entry in np.flatnonzero(may_go & is_source & (used > 0) & (used < needs.slots)).tolist():
        may_go[entry] = bool((newest.of(entry) & ~sources.of(entry)).any())
    return may_go


class TrimRule:
    """How a prune stores records again: split, or as one part with the slots that are needed."""

    def __init__(self, index: LoadedIndex, needs: Needs, splits: Splits, is_exempt: Flags) -> None:
        """Args: needs: once all is stored. is_exempt: the deltas that keep only sources that are needed without them."""
        self._needs, self._splits = needs, splits
        self._is_split = np.zeros(len(index), np.bool_)
        self._is_split[splits.entries] = True
        self._sources = find_source_slots(index, needs, is_exempt) if len(splits.entries) else needs.bits

    def list_parts(self, entry: EntryNumber) -> tuple[RecodedPart, ...]:
        """Return what becomes of a record: for a split one what newest snapshots do not use, then what they use."""
        needed = self._needs.list_needed(entry)
        if not self._is_split[entry]:
            return (RecodedPart(needed, self._needs.may_be_sources),)
        is_used = self._splits.newest.of(entry)
        used = RecodedPart(np.flatnonzero(is_used), self._may_be_source, may_look_below=True)
        others = needed[~is_used[needed] | self._sources.of(entry)[needed]]
        if not len(others) or is_used[needed].all():
            return (used,)
        return RecodedPart(others, self._needs.may_be_sources), used

    def _may_be_source(self, entries: EntryNumbers, within: Numbers) -> Flags:
        """Return of slot `within` of each of `entries` whether what newest snapshots use may be encoded against it."""
        resolved = self._needs.mapped.resolve(entries)
        return self._splits.may_be_sources[resolved] & self._needs.may_be_sources(entries, within)
