# SPDX-License-Identifier: Apache-2.0
"""The snapshots of a repository in a list: what each is, whether it can be restored, and how deep its delta chains are.

Whether content is lost is judged by what listings show: damaged manifests, missing maps, and packs and signatures that the
index names and that are missing. Only where something is missing, or a repair has moved damaged objects to quarantine, the map
of each snapshot is resolved. Other damage is found by `check` and `verify`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from msgspec import Struct

from deltaimg.errors import IntegrityError, SnapshotError, StoreError, UnsupportedFormat
from deltaimg.format.manifest import Manifest
from deltaimg.format.map import MAPS
from deltaimg.format.signature import SIGNATURES
from deltaimg.ids import RecordNumber
from deltaimg.repo.groups import find_missing
from deltaimg.repo.index import LoadedIndex, load_index
from deltaimg.repo.keys import QUARANTINE, digest_of
from deltaimg.repo.layers import resolve_map
from deltaimg.repo.object_kinds import MAP, SIGNATURE
from deltaimg.repo.repository import Repository
from deltaimg.repo.slots import SlotTable
from deltaimg.repo.snapshots import DamagedSnapshot, Snapshot


class ListedSnapshot(Struct, frozen=True):
    """A snapshot as lists show it."""

    snapshot: Snapshot | DamagedSnapshot
    is_base_forgotten: bool
    damage: str | None
    """Why it cannot be restored, or not as a whole."""
    depth: int | None
    """How many records must be decoded one after another, 0 without deltas; None where that was not asked for."""
    missing: tuple[str, ...] = ()
    """Members of its group that have no snapshot of the same moment."""


def describe_snapshots(
    repository: Repository, snapshots: Sequence[Snapshot | DamagedSnapshot], *, with_depth: bool = False
) -> list[ListedSnapshot]:
    """Return what lists show of snapshots; one that is forgotten meanwhile is left out.

    Args:
        snapshots: all of an image, or of the repository.
        with_depth: resolve the map of each, to find how deep its delta chains are.
    """
    ids = {each.ref.id for each in snapshots}
    look = _Look(repository, with_depth=with_depth)
    there: set[tuple[str, str]] = set()
    if any(isinstance(each, Snapshot) and each.manifest.group is not None for each in snapshots):
        there = {(ref.image, ref.time) for ref in repository.list_snapshots()}
    listed = []
    with repository.objects.reading_ahead(_list_maps(snapshots) if look.looks_closer else ()):
        for each in snapshots:
            depth, damage = None, str(each.error) if isinstance(each, DamagedSnapshot) else None
            is_base_forgotten = False
            missing: tuple[str, ...] = ()
            if isinstance(each, Snapshot):
                missing = find_missing(each.manifest, there)
                depth, damage = look.examine(each.manifest)
                is_base_forgotten = each.manifest.base is not None and each.manifest.base not in ids
            if damage is None or isinstance(each, DamagedSnapshot) or repository.has_snapshot(each.ref):
                listed.append(ListedSnapshot(each, is_base_forgotten, damage, depth, missing))
    return listed


def _list_maps(snapshots: Iterable[Snapshot | DamagedSnapshot]) -> Iterator[str]:
    """Yield the map layers of snapshots in the order in which they are resolved."""
    for each in snapshots:
        if isinstance(each, Snapshot):
            yield from map(MAP.name_of, reversed(each.manifest.maps))


class _Look:
    """What snapshots need that is not there."""

    def __init__(self, repository: Repository, *, with_depth: bool) -> None:
        self._repository, self._with_depth = repository, with_depth
        self._maps = {found.name for found in repository.objects.list(MAPS)}
        self._index: LoadedIndex = load_index(repository)
        there = {digest_of(found.name) for found in repository.objects.list(SIGNATURES)}
        self._is_signed = np.array([name in there for name in self._index.signatures], np.bool_)
        has_lost = bool(self._index.is_lost.any() or self._index.damage or not self._is_signed.all())
        self.looks_closer = with_depth or has_lost or any(repository.objects.list(QUARANTINE))

    def examine(self, manifest: Manifest) -> tuple[int | None, str | None]:
        """Return how deep a snapshot's delta chains are, if that was asked for, and what is wrong with it."""
        missing = [name for name in (MAP.name_of(digest) for digest in manifest.maps) if name not in self._maps]
        if missing:
            return None, f"{missing[0]} is missing"
        if not self.looks_closer:
            return None, None
        table, index = SlotTable(self._repository, self._index), self._index
        try:
            held = table.used_records(resolve_map(self._repository, manifest, table).runs)
            needed = table.add_sources(held)
        except (IntegrityError, SnapshotError, StoreError, UnsupportedFormat) as error:
            return None, str(error)
        depth = int(table.depths_of(needed).max(initial=0)) if self._with_depth else None
        lost = needed[index.is_missing[table.entries[needed]]]
        if len(lost):
            return depth, f"{table.pack_of(RecordNumber(int(lost[0])))} is missing"
        signatures = table.index_rows(held)["signature"]
        unsigned = signatures[~self._is_signed[signatures]]
        if len(unsigned):
            return depth, f"{SIGNATURE.name_of(index.signatures[int(unsigned[0])])} is missing"
        return depth, None
