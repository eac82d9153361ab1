# SPDX-License-Identifier: Apache-2.0
"""All index objects of a repository as one: from a record's id to its pack and offset, and to its digests.

Memory  67 bytes a record, 8 a link to a source and 4 a run of one: about 180 MB for a TiB of content in records of 512 KiB.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from msgspec.structs import replace

from deltaimg.arrays import Digests, expand_ranges, sparse_zeros
from deltaimg.errors import DeltaimgError, IntegrityError, ObjectNotFound, OnlyWrites
from deltaimg.format.deletion import DELETIONS
from deltaimg.format.index import ENTRY, INDEXES, IndexObject
from deltaimg.format.manifest import count_microseconds
from deltaimg.format.map import MAPS
from deltaimg.format.pack import PACKS, pack_name
from deltaimg.format.parity import PARITY
from deltaimg.format.sealing import find_host
from deltaimg.format.slot_runs import SlotRuns
from deltaimg.ids import EntryNumbers
from deltaimg.memory import check_room
from deltaimg.repo.cut_slots import CutSlots
from deltaimg.repo.deletions import PendingDeletion, load_deletions
from deltaimg.repo.keys import digest_of
from deltaimg.repo.links import Links, find_sound
from deltaimg.repo.object_kinds import INDEX
from deltaimg.repo.record_lookup import RecordLookup
from deltaimg.repo.repository import Repository
from deltaimg.store.interface import ObjectInfo

_TRIES = 3
_ROOM_ENTRIES = 1 << 20


class LoadedIndex:
    """The entries of all index objects of a repository: loaded once a run, and passed on.

    Entries number from 0, oldest index object first; their pack and signature numbers count in `packs`, `signatures`.

    `damage` says which index objects could not be read; `is_pending`, of each entry, whether its pack is pending deletion, or
    the index object that has it, and with it what the entry needs; `is_missing`, whether its pack is not there: a run that was
    considered dead may have indexed packs that a prune had deleted, and a disk may lose any; `is_by_host`, whether a
    write-only host sealed the index object that has it, or may open it.
    """

    def __init__(
        self,
        objects: dict[str, IndexObject],
        damage: tuple[DeltaimgError, ...] = (),
        pending: Collection[str] = (),
        missing: Collection[str] = (),
        hosts: Mapping[str, bytes] = MappingProxyType({}),
    ) -> None:
        """Args: objects: by name; taken over, and emptied. pending: names of packs and index objects. missing: of packs.

        hosts: the write-only host of each index object that has one, by name.
        """
        self.damage = damage
        self.names = sorted(objects, key=lambda name: objects[name].created_us)
        self.hosts = [hosts.get(name, b"") for name in self.names]
        self.created_us = [objects[name].created_us for name in self.names]
        self._firsts = np.cumsum([0, *(len(objects[name].entries) for name in self.names)])
        self.packs: list[str] = []
        self.signatures: list[str] = []
        self.entries: npt.NDArray[Any] = np.empty(int(self._firsts[-1]), ENTRY)
        taken = [self._take(objects.pop(name), first) for name, first in zip(self.names, self._firsts, strict=False)]
        links = [content.links for content in taken]
        self.cuts = CutSlots(
            [(int(first), content.cuts) for first, content in zip(self._firsts, taken, strict=False)],
            self.entries["slots"],
        )
        link_counts = np.concatenate([np.empty(0, np.uint16), *(each.link_counts for each in links)])
        self.object_of = np.repeat(np.arange(len(links), dtype=np.int32), np.diff(self._firsts))
        self.is_pending = _mark(self.packs, pending)[self.entries["pack"]]
        self.is_pending |= _mark(self.names, pending)[self.object_of]
        self.is_missing = _mark(self.packs, missing)[self.entries["pack"]]
        self.is_by_host = np.array([host != b"" for host in self.hosts], np.bool_)[self.object_of]
        # Of a record that was stored twice, the entry whose pack exists and stays is found; one of a holder of the secret,
        # since a write-only host may claim anything; a literal first, then the newest.
        ranks = 8 * self.is_missing.astype(np.int8) + 4 * self.is_pending.astype(np.int8)
        ranks += 2 * self.is_by_host.astype(np.int8) + (link_counts > 0).astype(np.int8)
        self._lookup = RecordLookup(self.entries["id"], ranks, -np.arange(len(self.entries), dtype=np.int32))
        self.links = Links(self._lookup, links, self.entries["slots"], self.cuts)
        # The entries found may form a cycle or too deep a chain; other entries of the same records may not.
        if len(self._lookup.repeated(link_counts > 0)) and (self.links.depths < 0).any():
            self._lookup.prefer(find_sound(self._lookup, self.links, ~self.is_pending & ~self.is_missing))
            self.links = Links(self._lookup, links, self.entries["slots"], self.cuts)

    def _take(self, content: IndexObject, first: int) -> IndexObject:
        """Copy an object's entries to where they belong, their packs and signatures renumbered; return it without them."""
        part = self.entries[first : first + len(content.entries)]
        part[:] = content.entries
        part["pack"] += len(self.packs)
        part["signature"] += len(self.signatures)
        self.packs += content.packs
        self.signatures += content.signatures
        return replace(content, entries=part[:0])

    def __len__(self) -> int:
        return len(self.entries)

    def first_entry_since(self, moment_us: int) -> int:
        """Return the number of the first entry of the index objects made at or after a moment, in microseconds since 1970."""
        return int(self._firsts[bisect_left(self.created_us, moment_us)])

    def order_after(self, clock: Callable[[], datetime]) -> Callable[[], int]:
        """Return a clock for new index objects, in microseconds since 1970: they are newer than all of these, whatever it says.

        Of a record in several places the newest is found, which may have been stored because another is damaged.
        """
        newest = max(self.created_us, default=0)
        return lambda: max(count_microseconds(clock()), newest + 1)

    def choose_of(self, host: bytes, entries: EntryNumbers) -> EntryNumbers:
        """Return those of `entries` that a write-only host has, or none has where `host` is empty."""
        is_of = np.array([each == host for each in self.hosts], np.bool_)
        return EntryNumbers(entries[is_of[self.object_of[entries]]])

    def find(self, record_ids: Digests, place: int = 0) -> EntryNumbers:
        """Return the entry number of each id, -1 for one that no index object has; `place` as in `RecordLookup.find`."""
        return self._lookup.find(record_ids, place)

    def list_copies(self) -> list[list[int]]:
        """Return the entries of each record that lies in several places, the best one first."""
        return self._lookup.list_repeated()

    def find_slots(
        self, record_ids: Digests, firsts: npt.NDArray[np.integer], counts: npt.NDArray[np.integer]
    ) -> EntryNumbers:
        """Return the best entry of each record that has slots [first, first + count), -1 where none has all of them."""

        def have(numbers: npt.NDArray[np.int64], entries: EntryNumbers) -> npt.NDArray[np.bool_]:
            return self.cuts.have(entries, firsts[numbers], counts[numbers])

        return self._lookup.find_best(record_ids, have)

    def find_runs(self, record_ids: Digests, runs: SlotRuns, run_counts: npt.NDArray[np.integer]) -> EntryNumbers:
        """Return the best entry of each record that has the slots of all its runs, -1 where none has.

        Args:
            runs: one record's after another's; `run_counts` says how many each has.
        """
        starts = np.cumsum(run_counts) - run_counts

        def have_all(numbers: npt.NDArray[np.int64], entries: EntryNumbers) -> npt.NDArray[np.bool_]:
            counts = run_counts[numbers]
            return self.cuts.have_all(entries, runs[expand_ranges(starts[numbers], counts)], counts)

        return self._lookup.find_best(record_ids, have_all)

    def find_needed(self, record_ids: Digests, slots: npt.NDArray[np.uint16], needed_by: str) -> EntryNumbers:
        """Return the entry number of each record that the object `needed_by` lists, `slots` being their numbers of slots.

        Raises:
            IntegrityError: no index object has one of them, or has it with another number of slots. Where an index object could
                not be read, which may be why: what is wrong with that.
        """
        entries = self.find(record_ids)
        if len(entries) and int(entries.min()) < 0:
            if self.damage:
                raise self.damage[0]
            missing = record_ids[int(np.argmin(entries))].tobytes().hex()[:16]
            raise IntegrityError(needed_by, 0, f"needs record {missing}, which no index has")
        if np.any(self.entries["slots"][entries] != slots):
            raise IntegrityError(needed_by, 0, "disagrees with the index on the size of a record")
        return entries

    def find_unsound(self, entries: EntryNumbers) -> list[IntegrityError]:
        """Return an error for each of `entries` that cannot be decoded, whatever its pack has."""
        problem = "needs sources that the index does not have, that need it in turn, or whose chain is too deep"
        unsound = self.entries[entries[self.links.depths[entries] < 0]]
        return [
            IntegrityError(pack_name(self.packs[pack]), offset, f"the record here {problem}")
            for pack, offset in unsound[["pack", "offset"]].tolist()
        ]

    @cached_property
    def is_lost(self) -> npt.NDArray[np.bool_]:
        """Of each entry, whether its pack is missing, or that of a record that it depends on."""
        lost: npt.NDArray[np.bool_] = self.is_missing.copy()
        deltas = np.flatnonzero(self.links.counts) if lost.any() else np.empty(0, np.int64)
        while len(deltas):
            counts = self.links.counts[deltas]
            sources = np.maximum(self.links.entries[self.links.of(EntryNumbers(deltas))], 0)
            is_newly = np.logical_or.reduceat(lost[sources], np.cumsum(counts) - counts) & ~lost[deltas]
            if not is_newly.any():
                break
            lost[deltas[is_newly]] = True
        return lost


class StoredContent(Struct, frozen=True):
    """What a repository has of content: its index, its objects, and what is pending deletion. Names are digests."""

    index: LoadedIndex
    pack_bytes: dict[str, int]
    """The size of each pack."""
    map_bytes: dict[str, int]
    """The size of each map layer."""
    parity_bytes: dict[str, int]
    """The size of each parity object."""
    pending_packs: frozenset[str]
    pending_maps: frozenset[str]


def load_index(repository: Repository, without: Collection[str] = ()) -> LoadedIndex:
    """Read every index object of `repository`; damaged ones are left out and listed in `damage`.

    A snapshot that needs none of their records is not affected; one that does fails when it is resolved.

    Args:
        without: names of index objects that are not read, as if they were deleted.
    """
    # Before the index objects: a prune that ends in between takes the list away, but only after what it names.
    lists = load_deletions(repository)
    objects, hosts, damage = _read_all_indexes(repository, without)
    # Listed after the index objects: what these name was stored before them.
    named = {pack for each in objects.values() for pack in each.packs}
    missing = named - {digest_of(found.name) for found in repository.objects.list(PACKS)} if named else named
    return LoadedIndex(objects, damage, _list_pending(lists), missing, hosts)


def load_content(repository: Repository, listing: Iterable[ObjectInfo] | None = None) -> StoredContent:
    """Do as `load_index`, and return what else was listed: one listing of everything serves for all of it.

    It comes in order of name, so that lists of pending deletions are listed before index objects, and these before packs.

    Args:
        listing: of everything, where there is one already: see `ExclusiveLock.listing`.
    """
    sizes: dict[str, dict[str, int]] = {DELETIONS: {}, INDEXES: {}, MAPS: {}, PACKS: {}, PARITY: {}}
    for found in repository.objects.list("") if listing is None else listing:
        folder = found.name.partition("/")[0] + "/"
        if folder in sizes:
            sizes[folder][found.name] = found.size_bytes
    lists = load_deletions(repository, names=list(sizes[DELETIONS]))
    objects, hosts, damage = _read_all_indexes(repository, listed=[digest_of(name) for name in sizes[INDEXES]])
    packs, maps, parity = (
        {digest_of(name): size for name, size in sizes[folder].items()} for folder in (PACKS, MAPS, PARITY)
    )
    lacking = {pack for each in objects.values() for pack in each.packs} - packs.keys()
    if lacking:
        packs |= {digest_of(found.name): found.size_bytes for found in repository.objects.list(PACKS)}
    return StoredContent(
        LoadedIndex(objects, damage, _list_pending(lists), lacking - packs.keys(), hosts),
        packs,
        maps,
        parity,
        frozenset(name for each in lists for name in each.objects.packs),
        frozenset(name for each in lists for name in each.objects.maps),
    )


def _list_pending(lists: Iterable[PendingDeletion]) -> set[str]:
    """Return the packs and index objects that are pending deletion."""
    return {name for each in lists for name in (*each.objects.packs, *each.objects.indexes)}


def _read_all_indexes(
    repository: Repository, without: Collection[str] = (), listed: list[str] | None = None
) -> tuple[dict[str, IndexObject], dict[str, bytes], tuple[DeltaimgError, ...]]:
    """Return all index objects that can be read, the hosts of those that have one, both by name, and what the others met.

    Args:
        listed: as in `_read_indexes`.
    """
    objects: dict[str, IndexObject] = {}
    hosts: dict[str, bytes] = {}
    damage: dict[str, DeltaimgError] = {}
    for number in range(_TRIES):
        damage = _read_indexes(repository, objects, hosts, without, listed if number == 0 else None)
        # One that was deleted between listing and reading was replaced by a prune, whose index is in the next listing.
        if not any(isinstance(error, ObjectNotFound) for error in damage.values()):
            break
    return objects, hosts, tuple(damage.values())


def _read_indexes(
    repository: Repository,
    objects: dict[str, IndexObject],
    hosts: dict[str, bytes],
    without: Collection[str],
    listed: list[str] | None,
) -> dict[str, DeltaimgError]:
    """Add to `objects` those that are listed, now if not given; return by name what those that cannot be read meet.

    A write-only host leaves out those that are not for it.
    """
    if listed is None:
        listed = [digest_of(found.name) for found in repository.objects.list(INDEXES)]
    room = _EntryRoom()
    damage: dict[str, DeltaimgError] = {}
    taken_bytes = sum(content.memory_bytes for content in objects.values())
    wanted = [name for name in listed if name not in objects and name not in without]
    with repository.objects.reading_ahead(map(INDEX.name_of, wanted)):
        for name in wanted:
            try:
                content, data = repository.objects.get_with_bytes(INDEX, INDEX.name_of(name))
            except OnlyWrites:
                continue
            except (IntegrityError, ObjectNotFound) as error:
                damage[name] = error
                continue
            taken_bytes += content.memory_bytes
            check_room(INDEX.name_of(name), taken_bytes)
            objects[name] = room.move(content)
            if host := find_host(data):
                hosts[name] = host
    return damage


class _EntryRoom:
    """Memory for the entries of many index objects in few large pieces, which go back to the system when they are freed.

    That of thousands of objects, each freed by itself, would not.
    """

    def __init__(self) -> None:
        self._free = np.empty(0, ENTRY)

    def move(self, content: IndexObject) -> IndexObject:
        """Return a copy without views of the object's bytes."""
        count = len(content.entries)
        if count > len(self._free):
            self._free = sparse_zeros(max(count, _ROOM_ENTRIES), ENTRY)
        entries, self._free = self._free[:count], self._free[count:]
        entries[:] = content.entries
        return replace(content, entries=entries, links=replace(content.links, ids=content.links.ids.copy()))


def _mark(names: list[str], chosen: Collection[str]) -> npt.NDArray[np.bool_]:
    return np.fromiter((name in chosen for name in names), np.bool_, len(names))
