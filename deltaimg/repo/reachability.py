# SPDX-License-Identifier: Apache-2.0
"""What is reachable: from manifests to map layers, to records, and to their delta sources, slot by slot.

Reads   manifests, index objects and maps, in this order; no signature, no pack.
Memory  the index; for each record 8 bytes and a bit a slot; a layer at a time. See docs/architecture.md for the sum.
Always  all or nothing: if anything cannot be read there is no result, only an error that names it.

Of a map layer only those runs count that some snapshot needs: one that lists the layer, and no newer layer that covers the same
blocks. Each layer is read once, and the cost grows with the runs of all layers, not with the number of snapshots.

The order matters while other runs write. What a manifest refers to was indexed before it appeared, so that an index that is
read after the manifests has it. A manifest that disappears meanwhile was forgotten, and needs nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from copy import copy

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.arrays import distinct, expand_ranges
from deltaimg.errors import IntegrityError, ObjectNotFound, ReachabilityUnknown, UnsupportedFormat
from deltaimg.format.manifest import Manifest
from deltaimg.format.map import MapObject
from deltaimg.ids import EntryNumbers
from deltaimg.repo.index import LoadedIndex, load_index
from deltaimg.repo.layer_tree import LayerNode, NeededLayer, grow_trees, list_layers, walk_layers
from deltaimg.repo.numbering import LayerNumbering, list_named_slots
from deltaimg.repo.object_kinds import MAP
from deltaimg.repo.repository import Repository, SnapshotRef
from deltaimg.repo.slot_copies import SlotPieces, place_slots

_TRIES = 3
_PIECE = 4096
"""Stretches of slots that are marked at once, each at most a record long."""


class SlotBits:
    """One bit for each slot of each index entry."""

    def __init__(self, slots: npt.NDArray[np.uint16]) -> None:
        count = int(slots.sum(dtype=np.uint64))
        self._firsts = np.zeros(len(slots) + 1, np.uint32 if count < 2**32 else np.int64)
        np.cumsum(slots, out=self._firsts[1:])
        self._bits = np.zeros(-(-count // 8), np.uint8)

    def mark(self, entries: EntryNumbers, starts: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> None:
        """Set the bits of slots [start, start + count) of each of `entries`; no stretch is empty."""
        for first in range(0, len(entries), _PIECE):
            piece = slice(first, first + _PIECE)
            self._mark(self._firsts[entries[piece]].astype(np.int64) + starts[piece], counts[piece])

    def _mark(self, firsts: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> None:
        lasts = firsts + counts - 1
        first_bytes, last_bytes = firsts >> 3, lasts >> 3
        heads, tails = (0xFF << (firsts & 7)) & 0xFF, 0xFF >> (7 - (lasts & 7))
        is_single = first_bytes == last_bytes
        np.bitwise_or.at(self._bits, first_bytes, np.where(is_single, heads & tails, heads).astype(np.uint8))
        np.bitwise_or.at(self._bits, last_bytes[~is_single], tails[~is_single].astype(np.uint8))
        self._bits[expand_ranges(first_bytes + 1, np.maximum(last_bytes - first_bytes - 1, 0))] = 0xFF

    def claim(
        self, entries: EntryNumbers, starts: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """Do as `mark`, and return for each stretch how many bits were not set before; bits in several stretches count once."""
        claimed = np.zeros(len(entries), np.int64)
        for first in range(0, len(entries), _PIECE):
            piece = slice(first, first + _PIECE)
            firsts = self._firsts[entries[piece]].astype(np.int64) + starts[piece]
            numbers, places = np.unique(expand_ranges(firsts, counts[piece]), return_index=True)
            is_new = (self._bits[numbers >> 3] >> (numbers & 7).astype(np.uint8)) & 1 == 0
            of_stretch = np.searchsorted(np.cumsum(counts[piece]), places[is_new], side="right")
            claimed[piece] = np.bincount(of_stretch, minlength=len(firsts))
            self._mark(firsts, counts[piece])
        return claimed

    def copy(self) -> SlotBits:
        """Return bits that can be set without these."""
        made = copy(self)
        made._bits = self._bits.copy()
        return made

    def count_in(
        self, entries: EntryNumbers, starts: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """Return how many bits of each stretch, as `mark` takes them, are set."""
        found = np.zeros(len(entries), np.int64)
        for first in range(0, len(entries), _PIECE):
            piece = slice(first, first + _PIECE)
            numbers = expand_ranges(self._firsts[entries[piece]].astype(np.int64) + starts[piece], counts[piece])
            is_set = (self._bits[numbers >> 3] >> (numbers & 7).astype(np.uint8)) & 1
            found[piece] = np.add.reduceat(is_set, np.cumsum(counts[piece]) - counts[piece], dtype=np.int64)
        return found

    def move(self, entry: int, other: int) -> None:
        """Set the bits of `entry` in `other`, which has as many, and clear them there."""
        slots = np.flatnonzero(self.of(entry))
        self.mark(EntryNumbers(np.full(len(slots), other)), slots, np.ones(len(slots), np.int64))
        places = int(self._firsts[entry]) + slots
        np.bitwise_and.at(self._bits, places >> 3, ~(1 << (places & 7)).astype(np.uint8))

    def of(self, entry: int) -> npt.NDArray[np.bool_]:
        """Return for each slot of an entry whether it is marked."""
        first, end = int(self._firsts[entry]), int(self._firsts[entry + 1])
        bits = np.unpackbits(self._bits[first >> 3 : -(-end // 8)], bitorder="little")
        return bits[first & 7 :][: end - first].astype(np.bool_)

    def count(self) -> npt.NDArray[np.uint16]:
        """Return how many slots of each entry are marked."""
        entry_count = len(self._firsts) - 1
        counts = np.zeros(entry_count, np.uint16)
        for start in range(0, entry_count, _PIECE):
            firsts = self._firsts[start : min(start + _PIECE, entry_count) + 1].astype(np.int64)
            base = int(firsts[0]) & ~7
            bits = np.unpackbits(self._bits[base >> 3 : -(-int(firsts[-1]) // 8)], bitorder="little")
            counts[start : start + len(firsts) - 1] = np.add.reduceat(bits, firsts[:-1] - base, dtype=np.uint16)
            last = bits[int(firsts[-2]) - base : int(firsts[-1]) - base]
            counts[start + len(firsts) - 2] = last.sum(dtype=np.uint16)
        return counts


class Reachable(Struct, frozen=True):
    """What all snapshots need, in entries of `index`; of a record in several places, the one that the index finds."""

    index: LoadedIndex
    manifests: tuple[Manifest, ...]
    maps: frozenset[str]
    is_live: npt.NDArray[np.bool_]
    """Of each entry: whether a snapshot needs it, itself or as a source."""
    mapped: SlotBits
    """Of each entry: the slots that maps name. None of one that is only a source."""


def mark(repository: Repository, without: Collection[str] = ()) -> Reachable:
    """Find all that any snapshot needs.

    The index is loaded each time: a prune marks before it plans, and again before it deletes.

    Args:
        without: names of index objects that are not read, as if they were deleted.

    Raises:
        ReachabilityUnknown: something cannot be read, so that reachability is unknown. StoreError: the store fails.
    """
    for _ in range(_TRIES - 1):
        manifests = _load_manifests(repository)
        try:
            return _mark(repository, manifests, without)
        except ReachabilityUnknown:
            # A snapshot that was forgotten, and pruned, since it was listed is no error.
            if {SnapshotRef.of(each) for each in manifests} <= set(repository.list_snapshots()):
                raise
    return _mark(repository, _load_manifests(repository), without)


def _mark(repository: Repository, manifests: list[Manifest], without: Collection[str]) -> Reachable:
    index = load_index(repository, without)
    if index.damage:
        raise ReachabilityUnknown([str(error) for error in index.damage])
    mapped = SlotBits(index.entries["slots"])
    is_mapped = np.zeros(len(index), np.bool_)
    problems: list[str] = []

    def load(node: LayerNode) -> MapObject | None:
        try:
            return repository.objects.get(MAP, MAP.name_of(node.digest))
        except (IntegrityError, UnsupportedFormat, ObjectNotFound) as error:
            problems.append(_name_problem(node.find_snapshot(), error))
            return None

    roots = grow_trees(manifests)
    with repository.objects.reading_ahead(MAP.name_of(node.digest) for node in list_layers(roots)):
        for needed in walk_layers(roots, load):
            try:
                for entries, starts, counts in find_pieces(index, needed):
                    is_mapped[entries] = True
                    mapped.mark(entries, starts, counts)
            except IntegrityError as error:
                problems.append(_name_problem(needed.node.find_snapshot(), error))
    if problems:
        raise ReachabilityUnknown(problems)
    is_live = is_mapped.copy()
    is_live[close_over_sources(index, EntryNumbers(np.flatnonzero(is_mapped & (index.links.counts > 0))))] = True
    maps = frozenset(digest for manifest in manifests for digest in manifest.maps)
    return Reachable(index, tuple(manifests), maps, is_live, mapped)


def close_over_sources(index: LoadedIndex, entries: EntryNumbers) -> EntryNumbers:
    """Return the entries that `entries` are encoded against, directly or not.

    Raises:
        ReachabilityUnknown: the index lacks one of them, they form a cycle, or a chain is too deep.
    """
    links = index.links
    found = np.zeros(len(index), np.bool_)
    frontier = entries[links.counts[entries] > 0]
    while len(frontier):
        if unsound := index.find_unsound(frontier):
            raise ReachabilityUnknown([str(error) for error in unsound])
        sources = distinct(links.entries[links.of(frontier)])
        frontier = sources[~found[sources]]
        found[frontier] = True
        frontier = frontier[links.counts[frontier] > 0]
    return EntryNumbers(np.flatnonzero(found))


def _load_manifests(repository: Repository) -> list[Manifest]:
    """Return all manifests; raises ReachabilityUnknown if one is damaged, or was damaged and is in quarantine."""
    manifests, problems = [], []
    refs = repository.list_snapshots()
    with repository.objects.reading_ahead(ref.object_name for ref in refs):
        for ref in refs:
            try:
                manifests.append(repository.load_manifest(ref))
            except ObjectNotFound:
                continue  # forgotten since the listing
            except (IntegrityError, UnsupportedFormat) as error:
                problems.append(f"{error}; repair it, or give it up with 'deltaimg forget {ref.label}'")
    # What a snapshot with a damaged manifest needs is unknown, and it may still be repaired.
    there = {SnapshotRef.of(each) for each in manifests}
    problems += [
        f"{names[0]} is a damaged manifest in quarantine; repair it from a copy, or give it up with "
        f"'deltaimg forget {ref.label}'"
        for ref, names in repository.list_quarantined().items()
        if ref not in there
    ]
    if problems:
        raise ReachabilityUnknown(problems)
    return manifests


def _name_problem(manifest: Manifest, error: Exception) -> str:
    """Return why the needs of a snapshot are unknown, and what to do about it."""
    return f"snapshot {manifest.label}: {error}; repair it, or give it up with 'deltaimg forget {manifest.label}'"


def find_pieces(
    index: LoadedIndex, needed: NeededLayer
) -> Iterator[tuple[EntryNumbers, npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Yield what snapshots need of a layer, some at a time: entries of records, and first slot and length of a stretch of each.

    Raises:
        IntegrityError: the index does not have it.
    """
    layer, name = needed.layer, MAP.name_of(needed.node.digest)
    numbers = LayerNumbering(layer)
    used = numbers.used_records(needed.runs)
    entries = EntryNumbers(np.full(numbers.record_count, -1, np.int64))
    entries[used] = index.find_needed(layer.record_ids[used], layer.record_slots[used], name)
    for records, starts, lengths in list_named_slots(needed.runs, numbers.first_slots, numbers.slot_counts):
        placed, _ = place_slots(index, SlotPieces(entries[records], starts, lengths), name)
        yield placed.entries, placed.firsts, placed.counts
