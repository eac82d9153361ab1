# SPDX-License-Identifier: Apache-2.0
"""What is still needed: from manifests to maps, from maps to records, from records to their sources, slot by slot.

Reads   manifests, index objects and maps, in this order; no signature, no pack.
Memory  the index; for each record 8 bytes and a bit a slot; one map at a time. See docs/architecture.md for the sum.
Always  all or nothing: where anything cannot be read there is no answer, only an error that names it.

The order matters beside others at work. What a manifest refers to was indexed before it appeared, so that an index that is
read after the manifests has it. A snapshot that a forget takes away meanwhile was either read before, or the one based
on it was read after it got the merged map; where that was read before and its base is gone, all manifests are read again.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import FIRST_SLOT, Runs, distinct, expand_ranges
from deltaimg.errors import IntegrityError, ObjectNotFound, ReachabilityUnknown, UnsupportedFormat
from deltaimg.format.manifest import SNAPSHOTS, Manifest
from deltaimg.format.map import MAPS, MapObject, parse_map
from deltaimg.repo.index import Index, load_index
from deltaimg.repo.quarantine import QUARANTINE
from deltaimg.repo.repository import Repository

_TRIES = 3
_PIECE = 4096
"""Stretches of slots that are marked at once, each at most a record long."""
_MAP_PIECE = 1 << 16
"""Runs of a map that are looked at at once."""


class SlotBits:
    """One bit for each slot of each index entry."""

    def __init__(self, slots: npt.NDArray[np.uint16]) -> None:
        count = int(slots.sum(dtype=np.uint64))
        self._firsts = np.zeros(len(slots) + 1, np.uint32 if count < 2**32 else np.int64)
        np.cumsum(slots, out=self._firsts[1:])
        self._bits = np.zeros(-(-count // 8), np.uint8)

    def mark(
        self, entries: npt.NDArray[np.int64], starts: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]
    ) -> None:
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

    def of(self, entry: int) -> npt.NDArray[np.bool_]:
        """Tell for each slot of an entry whether it is marked."""
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


@dataclass(frozen=True, slots=True)
class Reachable:
    """What all snapshots need, in entries of `index`; of a record in several places, the one that the index finds."""

    index: Index
    manifests: tuple[Manifest, ...]
    maps: frozenset[str]
    is_live: npt.NDArray[np.bool_]
    """Of each entry: whether a snapshot needs it, itself or as a source."""
    mapped_slots: npt.NDArray[np.uint16]
    """Of each entry: slots that maps name. None of one that is only a source."""
    mapped: SlotBits


def mark(repository: Repository, without: Collection[str] = ()) -> Reachable:
    """Find all that any snapshot needs.

    Args:
        without: names of index objects that are not read, as if they were gone.

    Raises:
        ReachabilityUnknown: something cannot be read, so that nothing can be said. StoreError: the store fails.
    """
    manifests = _load_manifests(repository)
    index = load_index(repository, without)
    if index.damage:
        raise ReachabilityUnknown([str(error) for error in index.damage])
    mapped = SlotBits(index.entries["slots"])
    is_mapped = np.zeros(len(index), np.bool_)
    problems: list[str] = []
    maps = {manifest.map: manifest.label for manifest in reversed(manifests)}
    for name, label in maps.items():
        try:
            content = parse_map(repository.get_object(MAPS, name), MAPS + name)
            _mark_map(index, content, MAPS + name, mapped, is_mapped)
        except (IntegrityError, UnsupportedFormat, ObjectNotFound) as error:
            problems.append(f"snapshot {label}: {error}")
    if problems:
        raise ReachabilityUnknown(problems)
    is_live = is_mapped.copy()
    is_live[close_over_sources(index, np.flatnonzero(is_mapped & (index.links.counts > 0)))] = True
    return Reachable(index, tuple(manifests), frozenset(maps), is_live, mapped.count(), mapped)


def close_over_sources(index: Index, entries: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the entries that `entries` are encoded against, directly or not.

    Raises:
        ReachabilityUnknown: the index lacks one of them, they need each other, or more stand on each other than may.
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
    return np.flatnonzero(found)


def cut_runs(
    runs: Runs, first_slots: npt.NDArray[np.int64], slot_counts: npt.NDArray[np.integer]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return, for each piece of the data runs that lies in one record, the record, its first slot there, and its length.

    Args:
        first_slots: of each record in the numbering of `runs`, ascending and without a gap.
    """
    data = runs[runs["slot"] >= FIRST_SLOT]
    slots, counts = data["slot"].astype(np.int64), data["count"].astype(np.int64)
    firsts = np.searchsorted(first_slots, slots, side="right") - 1
    pieces = np.searchsorted(first_slots, slots + counts - 1, side="right") - firsts
    records = expand_ranges(firsts, pieces)
    of_run = np.repeat(np.arange(len(data)), pieces)
    starts = np.maximum(slots[of_run], first_slots[records])
    ends = np.minimum((slots + counts)[of_run], first_slots[records] + slot_counts[records])
    return records, starts - first_slots[records], ends - starts


def _load_manifests(repository: Repository) -> list[Manifest]:
    """Return all manifests, each with those of its bases that its map needs."""
    problems: list[str] = []
    for _ in range(_TRIES):
        manifests, problems = [], []
        for ref in repository.list_snapshots():
            try:
                manifests.append(repository.load_manifest(ref))
            except ObjectNotFound:
                continue  # forgotten since the listing
            except (IntegrityError, UnsupportedFormat) as error:
                problems.append(str(error))
        # What was needed by a snapshot whose manifest is damaged nobody knows, as long as there is hope for it.
        problems += [
            f"{found.name} is a damaged manifest that was put aside; repair it from a copy, or delete it"
            for found in repository.store.list(QUARANTINE + SNAPSHOTS)
            if not found.name.removeprefix(QUARANTINE).startswith(tuple(each.object_name for each in manifests))
        ]
        there = {(manifest.image, manifest.id) for manifest in manifests}
        for manifest in manifests:
            if not manifest.map_is_full and (manifest.image, manifest.base) not in there:
                problems.append(f"snapshot {manifest.label} needs base {manifest.base}, which cannot be read")
        if not problems:
            return manifests
    raise ReachabilityUnknown(problems)


def _mark_map(index: Index, content: MapObject, name: str, mapped: SlotBits, is_mapped: npt.NDArray[np.bool_]) -> None:
    """Mark what one map needs; raises IntegrityError when the index does not have it."""
    entries = index.find_needed(content.record_ids, content.record_slots, name)
    is_mapped[entries] = True
    counts = content.record_slots
    first_slots = np.full(len(counts), FIRST_SLOT, np.int64)
    first_slots[1:] += np.cumsum(counts[:-1], dtype=np.int64)
    for first in range(0, len(content.runs), _MAP_PIECE):
        records, starts, lengths = cut_runs(content.runs[first : first + _MAP_PIECE], first_slots, counts)
        mapped.mark(entries[records], starts, lengths)
