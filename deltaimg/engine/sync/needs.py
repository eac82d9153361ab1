# SPDX-License-Identifier: Apache-2.0
"""What a snapshot needs that the destination does not have: records of the source, and those that they are encoded against.

Reads   map layers of the source.
Memory  a byte an index entry of the source, some map layers, and the slots that one snapshot names.

Record ids are the same in both repositories, entry numbers are not: all numbers here are of the source's index, but where a
name says `there`. A record counts as there if an entry of the destination has the slots that are needed, can be decoded, and is
neither missing nor pending deletion.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import distinct
from deltaimg.errors import IntegrityError, ObjectNotFound
from deltaimg.format.limits import MAX_DELTA_DEPTH
from deltaimg.format.map import RUN_MEMORY_BYTES, MapObject
from deltaimg.format.pack import pack_name
from deltaimg.ids import EntryNumbers
from deltaimg.model import MIB
from deltaimg.repo.cover import Cover
from deltaimg.repo.index import LoadedIndex
from deltaimg.repo.layer_tree import LayerNode, NeededLayer
from deltaimg.repo.object_kinds import MAP
from deltaimg.repo.reachability import find_pieces
from deltaimg.repo.repository import Repository
from deltaimg.repo.slot_copies import SlotPieces

_LAYER_MEMORY_BYTES = 64 * MIB
"""Of map layers that are kept: snapshots of an image have most of theirs in common."""


class SourceMaps:
    """The slots that map layers of the source name, as entries of its index."""

    def __init__(self, source: Repository, index: LoadedIndex) -> None:
        self._source, self._index = source, index
        self._layers: OrderedDict[str, MapObject] = OrderedDict()
        self._kept_bytes = 0

    def find_pieces(self, maps: Sequence[str]) -> SlotPieces:
        """Return what a snapshot needs of its newest map layers.

        Args:
            maps: these layers, the newest last; what they leave to older ones is left out.

        Raises:
            IntegrityError, ObjectNotFound, UnsupportedFormat: a layer or the index cannot be read, or lacks a record.
        """
        found: list[tuple[EntryNumbers, npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []
        cover = Cover.nothing()
        lacking = [MAP.name_of(digest) for digest in reversed(maps) if digest not in self._layers]
        with self._source.objects.reading_ahead(lacking):
            for digest in reversed(maps):
                layer = self._load(digest)
                found += find_pieces(self._index, NeededLayer(LayerNode(digest, None), layer, cover.uncovered(layer)))
                cover = cover.add(layer)
        nothing = np.empty(0, np.int64)
        columns = zip(*found, strict=True) if found else ((nothing,), (nothing,), (nothing,))
        entries, firsts, counts = (np.concatenate(column) for column in columns)
        return SlotPieces(EntryNumbers(entries), firsts, counts)

    def _load(self, digest: str) -> MapObject:
        layer = self._layers.pop(digest, None)
        if layer is None:
            layer = self._source.objects.get(MAP, MAP.name_of(digest))
            self._kept_bytes += _measure(layer)
        self._layers[digest] = layer
        while self._kept_bytes > _LAYER_MEMORY_BYTES and len(self._layers) > 1:
            self._kept_bytes -= _measure(self._layers.popitem(last=False)[1])
        return layer


class NeededRecords:
    """Finds records that the destination does not have, and notes which of the source's cannot be copied."""

    def __init__(self, index: LoadedIndex, there: LoadedIndex) -> None:
        """Args: index: of the source. there: of the destination."""
        self._index, self._there = index, there
        self._is_usable_there = ~(there.is_pending | there.is_lost) & (there.links.depths >= 0)
        self._is_found = np.zeros(len(index), np.bool_)
        self._deepest = int(index.links.depths.max(initial=0))

    def find(self, wanted: SlotPieces) -> EntryNumbers:
        """Return the records that are needed and not there, ascending, delta sources included.

        Raises:
            IntegrityError: the source cannot decode one of them. ObjectNotFound: it lacks the pack of one.
        """
        ids = self._index.entries["id"][wanted.entries]
        is_there = self._are_usable(self._there.find_slots(ids, wanted.firsts, wanted.counts))
        frontier = EntryNumbers(distinct(wanted.entries[~is_there]))
        parts = [EntryNumbers(np.empty(0, np.int64))]
        try:
            while len(frontier):
                self._is_found[frontier] = True
                parts.append(frontier)
                frontier = self._find_sources(frontier)
        finally:
            found = distinct(*parts)
            self._is_found[found] = False
        lost = found[self._index.is_missing[found]]
        if len(lost):
            raise ObjectNotFound(pack_name(self._index.packs[int(self._index.entries["pack"][lost[0]])]))
        return EntryNumbers(found)

    def _find_sources(self, entries: EntryNumbers) -> EntryNumbers:
        """Return the records that `entries` are directly encoded against, that are not there and were not found before."""
        links = self._index.links
        deltas = entries[links.counts[entries] > 0]
        if not len(deltas):
            return deltas
        if unsound := self._index.find_unsound(deltas):
            problem: IntegrityError = unsound[0]
            raise (self._index.damage or (problem,))[0]
        sources = links.sources_of(deltas)
        runs, run_counts = links.runs_of(deltas)
        there = self._there.find_runs(self._index.entries["id"][sources], runs, run_counts)
        is_there = self._are_usable(there)
        # The destination may have a source as a deeper delta; a chain over it must not become deeper than a reader allows.
        depths = self._there.links.depths[np.maximum(there, 0)] if len(self._there) else np.zeros(len(there), np.int8)
        is_shallow = (depths <= links.depths[sources]) | (depths.astype(np.int64) + self._deepest <= MAX_DELTA_DEPTH)
        lacking = distinct(sources[~(is_there & is_shallow)])
        return EntryNumbers(lacking[~self._is_found[lacking]])

    def _are_usable(self, there: EntryNumbers) -> npt.NDArray[np.bool_]:
        """Return which entries of the destination exist, -1 being none, and are good enough to refer to."""
        is_there = there >= 0
        is_there[is_there] = self._is_usable_there[there[is_there]]
        return is_there


def _measure(layer: MapObject) -> int:
    return (len(layer.runs) + len(layer.record_ids)) * RUN_MEMORY_BYTES
