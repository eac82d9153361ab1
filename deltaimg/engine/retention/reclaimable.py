# SPDX-License-Identifier: Apache-2.0
"""How many bytes of records a prune would delete once snapshots are forgotten, computed from metadata only.

What only forgotten snapshots need nearly always belongs to a row of them between two that are kept: so neighbours that are
forgotten together are one group, with one figure. What several groups share is counted for the first of them, so that the sum
is right. Of a record that loses some of its slots, that share of its bytes counts. Maps, manifests and what is unreachable
already do not.

Memory  the index, a bit a slot and a byte a record; a map layer at a time.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.arrays import distinct
from deltaimg.format.manifest import Manifest
from deltaimg.format.map import MapObject
from deltaimg.ids import EntryNumbers
from deltaimg.repo.index import LoadedIndex, load_index
from deltaimg.repo.layer_tree import LayerNode, grow_trees, list_layers, walk_layers
from deltaimg.repo.object_kinds import MAP
from deltaimg.repo.reachability import SlotBits, find_pieces
from deltaimg.repo.repository import Repository, SnapshotRef
from deltaimg.repo.retention import ForgetPlan
from deltaimg.repo.snapshots import Snapshot, load_snapshots

_Entries = npt.NDArray[np.int64]


class ReclaimableGroup(Struct, frozen=True):
    """Consecutive forgotten snapshots, oldest first, and the bytes of records that become unreachable with them."""

    refs: tuple[SnapshotRef, ...]
    reclaimable_bytes: int


def find_reclaimable(repository: Repository, plans: Sequence[ForgetPlan]) -> list[ReclaimableGroup]:
    """Return how much space the snapshots that `plans` forget would free.

    Raises:
        SnapshotError, IntegrityError, ObjectNotFound: what a snapshot of the repository needs cannot be determined.
    """
    groups = [refs for plan in plans for refs in _find_groups(plan)]
    group_of = {ref: number for number, refs in enumerate(groups) for ref in refs}
    manifests = list(_load_manifests(repository, group_of))
    needs = _Needs(load_index(repository))
    kept = [each for each in manifests if SnapshotRef.of(each) not in group_of]
    for _, pieces in _find_needed(repository, needs.index, grow_trees(kept)):
        needs.add(*pieces)
    reclaimable = np.zeros(len(groups), np.float64)
    for node, pieces in _find_needed(repository, needs.index, grow_trees(manifests)):
        group = _find_group(node, group_of)
        if group is not None:
            reclaimable[group] += needs.add(*pieces)
    return [ReclaimableGroup(refs, round(reclaimable[number])) for number, refs in enumerate(groups)]


class _Needs:
    """The slots that are needed by what was added so far, as content or as the source of a delta."""

    def __init__(self, index: LoadedIndex) -> None:
        self.index = index
        self._bits = SlotBits(index.entries["slots"])
        self._is_live = np.zeros(len(index), np.bool_)

    def add(self, entries: _Entries, starts: _Entries, counts: _Entries) -> float:
        """Add stretches of slots, and what they are encoded against; return the bytes that were not needed before."""
        added = 0.0
        while len(entries):
            new = self._bits.claim(EntryNumbers(entries), starts, counts)
            payload = self.index.entries["payload_bytes"][entries].astype(np.float64)
            added += float((payload * new / self.index.entries["slots"][entries]).sum())
            fresh = distinct(entries[~self._is_live[entries]])
            self._is_live[fresh] = True
            entries, starts, counts = self._find_sources(fresh[self.index.links.counts[fresh] > 0])
        return added

    def _find_sources(self, deltas: _Entries) -> tuple[_Entries, _Entries, _Entries]:
        """Return the stretches of slots that delta records are encoded against; raises IntegrityError."""
        if unsound := self.index.find_unsound(EntryNumbers(deltas)):
            raise unsound[0]
        links = self.index.links
        runs, run_counts = links.runs_of(EntryNumbers(deltas))
        sources = np.repeat(links.entries[links.of(EntryNumbers(deltas))].astype(np.int64), run_counts)
        return sources, runs["first_slot"].astype(np.int64), runs["count"].astype(np.int64)


def _find_groups(plan: ForgetPlan) -> Iterator[tuple[SnapshotRef, ...]]:
    """Yield the rows of forgotten snapshots between those that stay."""
    row: list[SnapshotRef] = []
    for each in plan.verdicts:
        if not each.is_kept:
            row.append(each.ref)
        elif row:
            yield tuple(row)
            row = []
    if row:
        yield tuple(row)


def _find_group(node: LayerNode, group_of: dict[SnapshotRef, int]) -> int | None:
    """Return the group of the nearest forgotten snapshot that lists a layer, if any does."""
    snapshots = (snapshot for each in node.list_subtree() for snapshot in each.snapshots)
    found = (group_of.get(SnapshotRef.of(each)) for each in snapshots)
    return next((group for group in found if group is not None), None)


def _load_manifests(repository: Repository, forgotten: Container[SnapshotRef]) -> Iterator[Manifest]:
    """Yield all manifests; raises what is wrong with one of a snapshot that stays."""
    for each in load_snapshots(repository):
        if isinstance(each, Snapshot):
            yield each.manifest
        elif each.ref not in forgotten:
            raise each.error


def _find_needed(
    repository: Repository, index: LoadedIndex, roots: list[LayerNode]
) -> Iterator[tuple[LayerNode, tuple[_Entries, _Entries, _Entries]]]:
    """Yield for each layer the stretches of slots that snapshots need of it: entries, first slots there, lengths."""

    def load(node: LayerNode) -> MapObject:
        return repository.objects.get(MAP, MAP.name_of(node.digest))

    with repository.objects.reading_ahead(MAP.name_of(node.digest) for node in list_layers(roots)):
        for needed in walk_layers(roots, load):
            for pieces in find_pieces(index, needed):
                yield needed.node, pieces
