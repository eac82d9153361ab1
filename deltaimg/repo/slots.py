# SPDX-License-Identifier: Apache-2.0
"""Numbers for stored blocks: one numbering of slots over the records that a run of the program deals with.

Records get consecutive numbers as they are met, and their slots do, too; slot 0 is a hole and slot 1 zero. Everything about a
block of an image is then arithmetic on one 32-bit number: its digest is `digests[slot]`, its record is found by
a binary search.

Memory  5 bytes an index entry, 41 a record, and 16 a slot once digests were asked for: of slots numbered by then, zeros where
        nothing was loaded.
Always  an array that was taken from a table stays valid for the records that it was taken of: numbering more records replaces
        arrays and changes none. Only `load_digests` fills in what was zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import (
    DIGEST_BYTES,
    FIRST_SLOT,
    Digests,
    Runs,
    distinct,
    empty_runs,
    group_by,
    join_runs,
)
from deltaimg.errors import DeltaimgError, IntegrityError, ObjectNotFound
from deltaimg.format.pack import pack_name
from deltaimg.format.slot_runs import SlotRuns
from deltaimg.ids import EntryNumbers, RecordNumber, RecordNumbers, SlotNumbers
from deltaimg.kernels import overlay_runs
from deltaimg.memory import check_room
from deltaimg.repo.index import LoadedIndex
from deltaimg.repo.numbering import RecordNumbering, renumber_runs
from deltaimg.repo.object_kinds import SIGNATURE
from deltaimg.repo.record_digests import take_digests
from deltaimg.repo.repository import Repository
from deltaimg.repo.slot_copies import SlotPieces, place_slots


class SlotTable(RecordNumbering):
    """The records and slots of one run of the program."""

    def __init__(self, repository: Repository, index: LoadedIndex) -> None:
        super().__init__()
        self._repository = repository
        self.index = index
        self._digests: Digests = np.zeros((FIRST_SLOT, DIGEST_BYTES), np.uint8)
        self._entries = EntryNumbers(np.empty(0, np.int64))
        self._is_loaded = np.empty(0, np.bool_)
        self._record_of_entry = np.full(len(index), -1, np.int32)
        self._is_found = np.zeros(len(index), np.bool_)
        """Of each index entry, while sources are searched; none between searches, which so cost what they find."""

    @property
    def entries(self) -> EntryNumbers:
        """The index entry of each record, by record number; -1 for one that this run made."""
        return self._entries

    @property
    def digests(self) -> Digests:
        """The digest of each slot that has a number now, zeros where none was loaded; to be asked for again after a load."""
        if len(self._digests) < self.slot_count:
            grown = np.zeros((self.slot_count, DIGEST_BYTES), np.uint8)
            grown[: len(self._digests)] = self._digests
            self._digests = grown
        return self._digests

    def add_records(self, record_ids: Digests, slots: npt.NDArray[np.uint16], needed_by: str) -> RecordNumbers:
        """Number the records of a map, those that have none yet; return the record number of each; raises as `find_needed`."""
        return self.add_entries(self.index.find_needed(record_ids, slots, needed_by))

    def number_runs(self, numbers: RecordNumbering, runs: Runs, needed_by: str) -> Runs:
        """Return runs, which count slots as `numbers` does, in this table's numbering, and number the records that they need.

        Where a copy of a record lacks slots that are named, another copy is taken.

        Raises:
            IntegrityError: as `LoadedIndex.find_needed`, or no copy of a record has a slot.
        """
        used = numbers.used_records(runs)
        entries = self.index.find_needed(
            numbers.record_ids[used], numbers.slot_counts[used].astype(np.uint16), needed_by
        )
        new_firsts = np.full(numbers.record_count, -1, np.int64)
        records = self.add_entries(entries)
        check_room(needed_by, self.slot_count * DIGEST_BYTES)
        new_firsts[used] = self.first_slots[records]
        own = renumber_runs(runs, numbers.first_slots[used], numbers.slot_counts[used], new_firsts[used], needed_by)
        if len(self.index.cuts):
            own = self._avoid_absent(self.cut_at_records(own, needed_by), needed_by)
        return overlay_runs(own, empty_runs())  # joins what was cut

    def _avoid_absent(self, runs: Runs, needed_by: str) -> Runs:
        """Return runs, none across two records, with other copies of records in place of those that lack their slots."""
        is_data = runs["slot"] >= FIRST_SLOT
        data = runs[is_data]
        records, firsts = self._split(data["slot"])
        wanted = SlotPieces(self._entries[records], firsts, data["count"].astype(np.int64))
        placed, origins = place_slots(self.index, wanted, needed_by)
        if placed is wanted:
            return runs
        copies = self.add_entries(placed.entries)
        found = data[origins]
        found["first_block"] += (placed.firsts - firsts[origins]).astype(np.uint64)
        found["count"], found["slot"] = placed.counts, self.first_slots[copies] + placed.firsts
        joined = join_runs([runs[~is_data], found])
        return joined[np.argsort(joined["first_block"], kind="stable")]

    def are_there(self, slots: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
        """Return which data slots have content: a cut record lacks some of its slots."""
        if not len(self.index.cuts):
            return np.ones(len(slots), np.bool_)
        records, within = self._split(slots)
        # A record of this run has no entry, and is whole.
        return self.index.cuts.have(self._entries[records], within, np.ones(len(slots), np.int64))

    def present_runs(self, records: RecordNumbers) -> tuple[SlotNumbers, npt.NDArray[np.int64]]:
        """Return first slot and count of each run of slots that `records`, which the index has, hold, in their order."""
        runs, run_counts = self.index.cuts.runs_of(self._entries[records])
        firsts = np.repeat(self.first_slots[records], run_counts) + runs["first_slot"]
        return SlotNumbers(firsts), runs["count"].astype(np.int64)

    def _split(self, slots: npt.NDArray[np.integer]) -> tuple[RecordNumbers, npt.NDArray[np.int64]]:
        """Return the record of each data slot, and its place there."""
        records = self.records_of(slots)
        return records, slots.astype(np.int64) - self.first_slots[records]

    def add_entries(self, entries: EntryNumbers) -> RecordNumbers:
        """Number the records of index entries, those that have none yet; return the record number of each."""
        unknown = entries[self._record_of_entry[entries] < 0]
        if len(unknown):
            new = unknown[np.sort(np.unique(unknown, return_index=True)[1])]
            counts = self.index.entries["slots"][new].astype(np.int64)
            self._check_room(counts)
            self._record_of_entry[new] = np.arange(self.record_count, self.record_count + len(new))
            self._append(self.index.entries["id"][new], new, counts, is_loaded=False)
        return self._records_at(entries)

    def add_sources(self, records: RecordNumbers) -> RecordNumbers:
        """Number all records that `records` are encoded against, those that these are, and so on.

        Returns:
            the numbers of all of them and of `records`, ascending.

        Raises:
            IntegrityError: the index lacks one of them, they form a cycle, or the chain is too deep. Where an index object
                could not be read, which may be why: what is wrong with that.
        """
        links = self.index.links
        frontier, parts = self._entries[records], [EntryNumbers(np.empty(0, np.int64))]
        try:
            while len(frontier := frontier[links.counts[frontier] > 0]):
                if unsound := self.index.find_unsound(frontier):
                    raise (self.index.damage or unsound)[0]  # an index object that could not be read may be why
                sources = EntryNumbers(distinct(links.entries[links.of(frontier)]).astype(np.int64))
                frontier = sources[~self._is_found[sources]]
                self._is_found[frontier] = True
                parts.append(frontier)
        finally:
            found = distinct(*parts)
            self._is_found[found] = False
        return distinct(records, self.add_entries(found))

    def source_slots(self, records: RecordNumber | RecordNumbers) -> tuple[SlotNumbers, npt.NDArray[np.int64]]:
        """Return first slot and count of each run of the blocks that records are encoded against, in their order.

        Empty for literals. `add_sources` must have numbered them.
        """
        links, entries = self.index.links, EntryNumbers(np.atleast_1d(self._entries[records]))
        runs, run_counts = links.runs_of(entries)
        sources = self._records_at(links.sources_of(entries))
        firsts = np.repeat(self._first_slots[sources], run_counts) + runs["first_slot"]
        return SlotNumbers(firsts), runs["count"].astype(np.int64)

    def source_records(self, records: RecordNumbers) -> tuple[RecordNumbers, npt.NDArray[np.int64]]:
        """Return the records that `records` are encoded against, one's after another's, and how many each has.

        `add_sources` must have numbered them.
        """
        links, entries = self.index.links, self._entries[records]
        return self._records_at(links.sources_of(entries)), links.counts[entries].astype(np.int64)

    def count_sources(self, records: RecordNumbers) -> tuple[RecordNumbers, npt.NDArray[np.int64]]:
        """Return those of `records` that are deltas, and how many blocks each of them is encoded against."""
        links = self.index.links
        deltas = records[self.are_deltas(records)]
        if not len(deltas):
            return deltas, np.empty(0, np.int64)
        runs, run_counts = links.runs_of(self._entries[deltas])
        of_link = np.add.reduceat(runs["count"].astype(np.int64), np.cumsum(run_counts) - run_counts)
        link_counts = links.counts[self._entries[deltas]]
        return deltas, np.add.reduceat(of_link, np.cumsum(link_counts) - link_counts)

    def share_digests(self, digests: Digests) -> None:
        """Keep `digests`, which begins with this table's own, in place of these: so they are in memory once."""
        self._digests = digests

    def add_new_records(self, record_ids: Digests, counts: npt.NDArray[np.int64], digests: Digests) -> None:
        """Number the records that this run made, in order.

        Args:
            digests: replaces this table's own; those of new slots follow the others.
        """
        assert len(digests) >= self.slot_count + int(counts.sum())
        self._append(record_ids, EntryNumbers(np.full(len(record_ids), -1, np.int64)), counts, is_loaded=True)
        self._digests = digests

    def _append(self, ids: Digests, entries: EntryNumbers, counts: npt.NDArray[np.int64], *, is_loaded: bool) -> None:
        self._append_numbers(ids, counts)
        self._entries = EntryNumbers(np.concatenate((self._entries, entries)))
        self._is_loaded = np.concatenate((self._is_loaded, np.full(len(ids), is_loaded, np.bool_)))

    def load_digests(self, records: RecordNumbers, on_damage: Callable[[DeltaimgError], None] | None = None) -> None:
        """Read the digests of `records` from their signatures and verify them by the records' ids.

        Where a signature cannot be used, those that other copies of its records have are read.

        Args:
            on_damage: called with the error of a signature whose records are then left out; without it the error is raised.
        """
        wanted = records[~self._is_loaded[records]]
        errors = self._load_signatures(wanted, self._entries[wanted])
        copy = 0
        waiting = wanted[~self._is_loaded[wanted]]
        while errors and len(waiting):
            entries = self.index.find(self.index.entries["id"][self._entries[waiting]], copy)
            waiting, entries = waiting[entries >= 0], entries[entries >= 0]
            is_untried = ~np.isin(self.index.entries["signature"][entries], list(errors))
            errors |= self._load_signatures(waiting[is_untried], entries[is_untried])
            waiting = waiting[~self._is_loaded[waiting]]
            copy += 1
        lost = wanted[~self._is_loaded[wanted]]
        for signature in distinct(self.index.entries["signature"][self._entries[lost]]).tolist():
            if on_damage is None:
                raise errors[signature]
            on_damage(errors[signature])

    def _load_signatures(self, records: RecordNumbers, entries: EntryNumbers) -> dict[int, DeltaimgError]:
        """Load digests of `records` from where `entries` of theirs say; return the errors by number of signature."""
        errors: dict[int, DeltaimgError] = {}
        groups = list(group_by(self.index.entries["signature"][entries]))
        names = [SIGNATURE.name_of(self.index.signatures[signature]) for signature, _ in groups]
        with self._repository.objects.reading_ahead(names):
            for name, (signature, places) in zip(names, groups, strict=True):
                try:
                    content = self._repository.objects.get(SIGNATURE, name)
                    key, rows, digests = self._repository.keys.record, self.index.entries[entries[places]], self.digests
                    for of_size, found in take_digests(key, rows, name, content):
                        slots = self._first_slots[records[places[of_size]], np.newaxis] + np.arange(found.shape[1])
                        digests[slots] = found
                    self._is_loaded[records[places]] = True
                except (IntegrityError, ObjectNotFound) as error:
                    errors[signature] = error
        return errors

    @property
    def is_loaded(self) -> npt.NDArray[np.bool_]:
        """Of each record, whether its digests are loaded."""
        return self._is_loaded

    def find_records(self, record_ids: Digests) -> RecordNumbers:
        """Return the number of each record, -1 for one that the index or this table does not have."""
        entries = self.index.find(record_ids)
        if not len(self.index):
            return RecordNumbers(entries)
        return RecordNumbers(np.where(entries >= 0, self._records_at(EntryNumbers(np.maximum(entries, 0))), -1))

    def _records_at(self, entries: EntryNumbers) -> RecordNumbers:
        """Return the record number of each entry, -1 for one that has none."""
        return RecordNumbers(self._record_of_entry[entries].astype(np.int64))

    # -- what the index says of records that it has -------------------------------------------------------------------

    def index_rows(self, records: RecordNumbers) -> npt.NDArray[Any]:
        """Return what the index says of each record, of `ENTRY`, copied."""
        rows: npt.NDArray[Any] = self.index.entries[self._entries[records]]
        return rows

    def depths_of(self, records: RecordNumbers) -> npt.NDArray[np.int8]:
        """Return the delta depth of each record: 0 for a literal, -1 for one that cannot be decoded."""
        depths: npt.NDArray[np.int8] = self.index.links.depths[self._entries[records]]
        return depths

    def are_deltas(self, records: RecordNumbers) -> npt.NDArray[np.bool_]:
        """Return which records are encoded against others."""
        is_delta: npt.NDArray[np.bool_] = self.index.links.counts[self._entries[records]] > 0
        return is_delta

    def count_present(self, records: RecordNumbers) -> npt.NDArray[np.int64]:
        """Return how many slots of each record have content: all but for cut records."""
        return self.index.cuts.count(self._entries[records])

    def find_present(self, record: RecordNumber) -> SlotRuns | None:
        """Return the runs of slots that a cut record has, None for a whole record."""
        if not len(self.index.cuts):
            return None
        entry = self._entries[record : record + 1]
        return self.index.cuts.runs_of(entry)[0] if self.index.cuts.is_cut(entry)[0] else None

    def describe_sources(self, record: RecordNumber) -> tuple[int, bytes]:
        """Return how many records a delta is encoded against, and the table of them that it must begin with."""
        links, (entry,) = self.index.links, self._entries[record : record + 1].tolist()
        return int(links.counts[entry]), links.table_of(entry)

    def pack_of(self, record: RecordNumber) -> str:
        """Return the object name of the pack that holds a record."""
        return pack_name(self.index.packs[int(self.index.entries["pack"][self._entries[record]])])
