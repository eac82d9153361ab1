# SPDX-License-Identifier: Apache-2.0
"""All entries of a repository's index objects, compared with packs and signatures: a part of `check`.

Memory  120 bytes a record at its highest, sources of delta records included; one signature. `docs/repair.md` has figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from msgspec.structs import replace

from deltaimg.arrays import DIGEST_BYTES, Digests, distinct, expand_ranges
from deltaimg.engine.check.findings import FindingKind, Findings, count_records
from deltaimg.engine.check.pack_state import PackJob, PackState, read_pack, read_pack_at
from deltaimg.engine.cluster import Cluster
from deltaimg.engine.pipeline import OrderedPool, count_workers
from deltaimg.errors import IntegrityError, ObjectNotFound, StoreError, UnsupportedFormat
from deltaimg.format.cut_entries import CutEntries
from deltaimg.format.index import ENTRY, INDEXES, IndexObject
from deltaimg.format.limits import MAX_DELTA_DEPTH
from deltaimg.format.pack import pack_name
from deltaimg.format.slot_runs import SLOT_RUN, SlotRuns
from deltaimg.ids import EntryNumbers, LinkNumbers
from deltaimg.kernels import digest_buffer
from deltaimg.memory import check_room
from deltaimg.repo.cut_slots import CutSlots
from deltaimg.repo.object_kinds import INDEX, SIGNATURE
from deltaimg.repo.record_lookup import RecordLookup
from deltaimg.repo.reopen import RepositoryPlace
from deltaimg.repo.repository import Repository

_COMPARED = ("id", "payload_bytes", "slots", "encoding", "block_shift")
"""Fields that an index entry and the footer of its pack have both."""
_SHOWN = 20
"""Damaged records of one pack that are named one by one."""


PackDamage = Mapping[str, tuple[tuple[int, str], ...] | None]
"""Packs that were read whole: their damaged records by offset, or None where all bytes are those that the name says."""


class _Sources(Struct, frozen=True):
    """The delta sources of the records of one index object."""

    ids: Digests
    link_counts: npt.NDArray[np.uint16]
    places: npt.NDArray[np.uint32]
    run_counts: npt.NDArray[np.uint16]
    """Runs of slots that are taken from each source."""
    runs: SlotRuns


class Catalog:
    """The records of a repository.

    `has_place` is whether the record of each entry is where the entry says, `has_digests` whether its digests are,
    `is_good` both; `is_usable`, of the entry that `find` returns, whether the record can be expanded from any of its places.
    """

    def __init__(
        self,
        repository: Repository,
        sizes: dict[str, int],
        findings: Findings,
        known_packs: PackDamage = MappingProxyType({}),
    ) -> None:
        self._repository, self._sizes, self._findings = repository, sizes, findings
        self.pack_damage = dict(known_packs)
        self.packs: list[str] = []
        self.signatures: list[str] = []
        self.index_names: list[str] = []
        self._firsts: list[int] = []
        self._pack_numbers: dict[str, int] = {}
        self._signature_numbers: dict[str, int] = {}
        self._missing: list[tuple[str, npt.NDArray[np.int64], str]] = []
        """Packs and signatures that are not there, their entries, and what their index object says of them."""
        self._sources: list[_Sources] = []
        self._fill([name for name in sizes if name.startswith(INDEXES)])
        self.is_good = np.ones(len(self.entries), np.bool_)

    def __len__(self) -> int:
        return len(self.entries)

    # -- reading index objects ---------------------------------------------------------------------------------------

    def _fill(self, names: list[str]) -> None:
        entries = np.empty(0, ENTRY)
        filled = taken_bytes = 0
        cuts: list[tuple[int, CutEntries]] = []
        with self._repository.objects.reading_ahead(names):
            for name in names:
                try:
                    content = self._repository.objects.get(INDEX, name)
                except ObjectNotFound:
                    continue  # It was deleted since it was listed; the check is run again.
                except (IntegrityError, StoreError, UnsupportedFormat) as error:
                    self._findings.add_failure(name, error)
                    continue
                taken_bytes += content.memory_bytes
                check_room(name, taken_bytes)
                self.index_names.append(name)
                self._firsts.append(filled)
                # Grown where it is: the system moves large memory without a copy. No other code has the array yet.
                entries.resize(filled + len(content.entries), refcheck=False)
                part = entries[filled:]
                part[:] = content.entries
                packs = [_number(self._pack_numbers, self.packs, pack_name(digest)) for digest in content.packs]
                signatures = [_number(self._signature_numbers, self.signatures, each) for each in content.signatures]
                if len(part):
                    part["pack"] = np.array(packs, np.uint32)[content.entries["pack"]]
                    part["signature"] = np.array(signatures, np.uint32)[content.entries["signature"]]
                self._sources.append(_keep_sources(content))
                cuts.append((filled, content.cuts))
                filled += len(content.entries)
                del part
        self.entries: npt.NDArray[Any] = entries
        self.cuts = CutSlots(cuts, self.entries["slots"])

    def index_of(self, entry: int) -> str:
        """Return the index object that has an entry."""
        return self.index_names[int(np.searchsorted(self._firsts, entry, side="right")) - 1]

    def entries_of(self, number: int) -> slice:
        """Return where the entries of one index object are."""
        return slice(self._firsts[number], [*self._firsts, len(self.entries)][number + 1])

    # -- packs -------------------------------------------------------------------------------------------------------

    def check_packs(
        self,
        *,
        read_packs: bool,
        advance: Callable[[int], None],
        workers: int | None = None,
        cluster: Cluster | None = None,
    ) -> int:
        """Compare all packs that the index names with their footers, or with their names; return the bytes read.

        Args:
            advance: called with the bytes of each pack that was read whole.
            cluster: where packs that are read whole are read; threads of this process, if not given.
        """
        order, bounds = _group(self.entries["pack"], len(self.packs))
        present = []
        for number, name in enumerate(self.packs):
            entries = order[bounds[number] : bounds[number + 1]]
            if name in self._sizes:
                present.append(number)
                continue
            self.is_good[entries] = False
            self._missing.append((name, entries, "lists {} in it"))

        place = None if cluster is None or not read_packs else RepositoryPlace.of(self._repository)

        def describe(number: int) -> PackJob:
            name = self.packs[number]
            offsets = self.entries["offset"][order[bounds[number] : bounds[number + 1]]].astype(np.int64)
            is_whole = read_packs and name not in self.pack_damage
            return PackJob(name, self._sizes[name], offsets, is_whole, place)

        def read(job: PackJob) -> PackState:
            return read_pack(self._repository.objects, job)

        jobs = map(describe, present)
        with OrderedPool(workers=self._count_workers(workers, read_packs=read_packs)) as pool:
            states = pool.map(read, jobs) if cluster is None or place is None else cluster.map(read_pack_at, jobs)
            for number, found in zip(present, states, strict=True):
                name = self.packs[number]
                state = found
                if read_packs and not isinstance(state.error, StoreError):
                    state = replace(state, damaged=self.pack_damage.setdefault(name, state.damaged))
                self._note_state(name, state, EntryNumbers(order[bounds[number] : bounds[number + 1]]))
                if read_packs:
                    advance(self._sizes[name])
        self.has_place = self.is_good.copy()
        return sum(self._sizes[self.packs[number]] for number in present) if read_packs else 0

    def _count_workers(self, given: int | None, *, read_packs: bool) -> int:
        """Return how many packs to look at once: the ends of packs are small, and each read of one is a round trip."""
        count = given or count_workers()
        return count if read_packs else max(count, self._repository.objects.properties.parallel_requests)

    def _note_state(self, name: str, state: PackState, entries: EntryNumbers) -> None:
        """Note what is wrong with a pack, and which records of it that concerns."""
        findings = self._findings
        if state.error is not None:
            findings.add_failure(name, state.error)
        if state.damaged is not None:
            self.is_good[entries] &= ~np.isin(self.entries["offset"][entries], [at for at, _ in state.damaged])
            for offset, problem in state.damaged[:_SHOWN]:
                findings.add_error(FindingKind.DAMAGED, name, problem, offset)
            if len(state.damaged) > _SHOWN:
                more = len(state.damaged) - _SHOWN
                findings.add_error(FindingKind.DAMAGED, name, f"{count_records(more)} more of it are damaged")
            if not state.damaged and state.error is None:
                findings.add_error(
                    FindingKind.DAMAGED, name, "its bytes are not those that its name is the digest of", 0
                )
        elif state.error is not None:
            self.is_good[entries] = False
        if state.footer is not None:
            self._compare_footer(name, state.footer, entries)

    def _compare_footer(self, name: str, footer: npt.NDArray[Any], entries: EntryNumbers) -> None:
        """Compare the index entries of a pack with the footer of the pack."""
        claimed = self.entries[entries]
        places = np.searchsorted(footer["offset"], claimed["offset"])
        agrees = places < len(footer)
        places = np.minimum(places, max(0, len(footer) - 1))
        if len(footer):
            agrees &= footer["offset"][places] == claimed["offset"]
            for field in _COMPARED:
                same = footer[field][places] == claimed[field]
                agrees &= same.all(axis=1) if field == "id" else same
            agrees &= claimed["slots"] - footer["absent"][places] == self.cuts.count(entries)
        if bool(agrees.all()):
            return
        self.is_good[entries[~agrees]] = False
        first = int(entries[np.argmin(agrees)])
        self._findings.add_error(
            FindingKind.CONTRADICTORY,
            self.index_of(first),
            f"{count_records(int((~agrees).sum()))} of it do not lie in {name} as it says; "
            f"the first at byte {int(self.entries['offset'][first])} there",
        )

    # -- signatures --------------------------------------------------------------------------------------------------

    def check_signatures(self) -> None:
        """Compare the digests of all records with their ids, one signature after another."""
        self.has_digests = np.ones(len(self.entries), np.bool_)
        order, bounds = _group(self.entries["signature"], len(self.signatures))
        names = [SIGNATURE.name_of(digest) for digest in self.signatures]
        with self._repository.objects.reading_ahead(name for name in names if name in self._sizes):
            for number, name in enumerate(names):
                entries = order[bounds[number] : bounds[number + 1]]
                if name not in self._sizes:
                    self.has_digests[entries] = False
                    self._missing.append((name, entries, "looks in it for the digests of {}"))
                    continue
                try:
                    digests = self._repository.objects.get(SIGNATURE, name).digests
                except (IntegrityError, StoreError, UnsupportedFormat) as error:
                    self._findings.add_failure(name, error)
                    self.has_digests[entries] = False
                    continue
                self._compare_digests(name, digests, EntryNumbers(entries))
        self.is_good &= self.has_digests

    def _compare_digests(self, name: str, digests: Digests, entries: EntryNumbers) -> None:
        """Compare the digests that a signature has of records with their ids, which are made of them."""
        key = self._repository.keys.record
        rows = self.entries[entries]
        wrong = [
            entry
            for entry, first, slots, record_id in zip(
                entries.tolist(), rows["first_digest"].tolist(), rows["slots"].tolist(), rows["id"], strict=True
            )
            if digest_buffer(digests[first : first + slots].data, key, DIGEST_BYTES) != record_id.tobytes()
        ]
        if wrong:
            self.has_digests[wrong] = False
            self._findings.add_error(
                FindingKind.CONTRADICTORY,
                self.index_of(wrong[0]),
                f"the digests that it points to in {name} are not those of {count_records(len(wrong))} of it",
            )

    # -- records by id, and their sources ----------------------------------------------------------------------------

    def sort(self) -> None:
        """Make records findable by id; of those that are in several places, a good one is found."""
        self._lookup = RecordLookup(self.entries["id"], ~self.is_good)

    def find(self, ids: Digests) -> EntryNumbers:
        """Return the entry of each record, -1 for one that no index object has."""
        return self._lookup.find(ids)

    def check_sources(self) -> None:
        """Compare the delta sources of records with the index: all present, of one block size, no cycle, not too deep."""
        parts = [each for each in self._sources if len(each.link_counts)]
        self._sources = []
        self.counts = np.concatenate([np.empty(0, np.uint16), *(each.link_counts for each in parts)])
        self.starts: npt.NDArray[np.uint32] = np.cumsum(self.counts, dtype=np.uint32) - self.counts
        sources = [self.find(each.ids).astype(np.int32)[each.places] for each in parts if len(each.places)]
        self.sources: npt.NDArray[np.int32] = np.concatenate([np.empty(0, np.int32), *sources])
        run_counts = np.concatenate([np.empty(0, np.int64), *(each.run_counts for each in parts)])
        runs = np.concatenate([np.empty(0, SLOT_RUN), *(each.runs for each in parts)])
        self._without_sources = np.empty(0, np.int64)
        if len(self.sources):
            self._take_copies(runs, run_counts)
            found, fits = np.maximum(self.sources, 0), self.sources >= 0
            owners = np.repeat(np.arange(len(self.counts), dtype=np.int32), self.counts)
            run_ends = runs["first_slot"].astype(np.uint32) + runs["count"]
            fits &= np.maximum.reduceat(run_ends, np.cumsum(run_counts) - run_counts) <= self.entries["slots"][found]
            fits &= self.entries["block_shift"][found] == self.entries["block_shift"][owners]
            self._without_sources = distinct(owners[~fits]).astype(np.int64)
            self.is_good[self._without_sources] = False
        self._find_usable()

    def _take_copies(self, runs: SlotRuns, run_counts: npt.NDArray[np.int64]) -> None:
        """Take other copies of source records, or none, where the ones found lack slots that deltas are encoded against."""
        links = np.flatnonzero(self.cuts.is_cut(EntryNumbers(self.sources.astype(np.int64))))
        if not len(links):
            return
        starts = np.cumsum(run_counts) - run_counts

        def have_all(numbers: npt.NDArray[np.int64], entries: EntryNumbers) -> npt.NDArray[np.bool_]:
            counts = run_counts[links[numbers]]
            return self.cuts.have_all(entries, runs[expand_ranges(starts[links[numbers]], counts)], counts)

        self.sources[links] = self._lookup.find_best(self.entries["id"][self.sources[links]], have_all)

    def find_lacking(
        self, entries: EntryNumbers, firsts: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]
    ) -> EntryNumbers:
        """Return the records that have no copy with some of slots [first, first + count) of each of `entries`."""
        asked = np.flatnonzero(~self.cuts.have(entries, firsts, counts))
        entries = EntryNumbers(np.repeat(entries[asked], counts[asked]))
        slots = expand_ranges(firsts[asked], counts[asked])

        def have(numbers: npt.NDArray[np.int64], found: EntryNumbers) -> npt.NDArray[np.bool_]:
            return self.cuts.have(found, slots[numbers], np.ones(len(numbers), np.int64)) & self.is_good[found]

        found = self._lookup.find_best(self.entries["id"][entries], have)
        return distinct(entries[found < 0])

    def _find_usable(self) -> None:
        """Find the records that can be expanded: from any good place whose sources can be, a record having several.

        In the place of a cut record no other will do: it was chosen for the slots that it has.
        """
        records = self._lookup.firsts
        is_cut = np.zeros(len(self.entries), np.bool_)
        is_cut[self.cuts.entries] = True
        can_expand = self.is_good & (self.counts == 0)
        self.is_usable = np.zeros(len(self.entries), np.bool_)
        self.is_usable[records[can_expand]] = True
        waiting = np.flatnonzero(self.is_good & (self.counts > 0))
        for _ in range(MAX_DELTA_DEPTH):
            if not len(waiting):
                break
            sources = self.sources[self._links_of(EntryNumbers(waiting))]
            can_be_source = can_expand[sources] | (~is_cut[sources] & self.is_usable[records[sources]])
            firsts = np.cumsum(self.counts[waiting], dtype=np.int64) - self.counts[waiting]
            is_ready = np.logical_and.reduceat(can_be_source, firsts)
            can_expand[waiting[is_ready]] = True
            self.is_usable[records[waiting[is_ready]]] = True
            waiting = waiting[~is_ready]
        self._without_depth = waiting[~self.is_usable[records[waiting]]]

    def _links_of(self, entries: EntryNumbers) -> LinkNumbers:
        """Return the numbers of the links of `entries`, entry after entry."""
        counts = self.counts[entries].astype(np.int64)
        return LinkNumbers(expand_ranges(self.starts[entries].astype(np.int64), counts))

    def report_sources(self, is_used: npt.NDArray[np.bool_]) -> None:
        """Report used delta records that cannot be expanded; of others, a prune may have deleted the sources."""
        for entries, problem in (
            (self._without_sources, "need sources that no index has"),
            (
                self._without_depth,
                "cannot be decoded: what they are encoded against is damaged or lost, or refers back to them",
            ),
        ):
            for index, members in self._by_index(EntryNumbers(entries[is_used[entries]])):
                self._findings.add_error(
                    FindingKind.CONTRADICTORY, index, f"{count_records(len(members))} of it {problem}"
                )

    def report_missing(self, is_used: npt.NDArray[np.bool_]) -> None:
        """Report missing packs and signatures: an error where snapshots need what they held.

        Otherwise a run that was considered dead indexed packs that a prune had deleted, which costs nothing.
        """
        for name, entries, problem in self._missing:
            where = self.index_of(int(entries[0])) if len(entries) else name
            if is_used[entries].any():
                records = problem.format(count_records(len(entries)))
                self._findings.add_error(FindingKind.MISSING, name, f"is missing; {where} {records}")
            else:
                self._findings.add_note(
                    FindingKind.ORPHAN,
                    where,
                    f"names {name}, which is missing; no snapshot needs it, and a prune removes this entry",
                )

    def _by_index(self, entries: EntryNumbers) -> Iterator[tuple[str, EntryNumbers]]:
        owners = np.searchsorted(self._firsts, entries, side="right") - 1
        for owner in distinct(owners).tolist():
            yield self.index_names[owner], entries[owners == owner]

    def add_sources(self, is_used: npt.NDArray[np.bool_]) -> None:
        """Mark in `is_used` all records that those marked are encoded against, directly or not."""
        frontier = np.flatnonzero(is_used & (self.counts > 0))
        while len(frontier):
            links = self._links_of(EntryNumbers(frontier))
            sources = distinct(self.sources[links]).astype(np.int64)
            sources = sources[sources >= 0]
            fresh = sources[~is_used[sources]]
            is_used[fresh] = True
            frontier = fresh[self.counts[fresh] > 0]


def _number(numbers: dict[str, int], names: list[str], name: str) -> int:
    """Return the number of a name, a new one for one that was not met before."""
    if name not in numbers:
        numbers[name] = len(names)
        names.append(name)
    return numbers[name]


def _keep_sources(content: IndexObject) -> _Sources:
    """Return what is needed later of an index object's links, none of it a view of the object."""
    links = content.links
    return _Sources(links.ids.copy(), links.link_counts.copy(), links.places, links.run_counts, links.runs)


def _group(numbers: npt.NDArray[np.uint32], count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return entries by number, and where those of each number begin and end."""
    order = np.argsort(numbers, kind="stable")
    return order, np.concatenate((np.zeros(1, np.int64), np.cumsum(np.bincount(numbers, minlength=count))))
