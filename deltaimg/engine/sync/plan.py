# SPDX-License-Identifier: Apache-2.0
"""What is copied for each snapshot: records, map layers and the manifest; and how much all of that is.

Each snapshot is planned over those before it: what they bring counts as there. A snapshot whose map layers continue those of
one that the destination has, or gets before it, needs nothing of these layers that the other does not need as well: only its
newer layers are read.

Always  a plan has all that its snapshot needs and the destination lacks, whichever snapshot brings it, but for what the layers
        of an earlier one need: where some of it cannot be read, every snapshot that needs it fails, and no other.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from msgspec import Struct, field

from deltaimg.engine.record_copies import payload_bytes
from deltaimg.engine.sync.needs import NeededRecords, SourceMaps
from deltaimg.engine.sync.packs import PackChoice, choose_packs
from deltaimg.engine.sync.sides import locating
from deltaimg.errors import DeltaimgError, RepositoryLocked
from deltaimg.format.index import ENTRY
from deltaimg.format.manifest import Manifest
from deltaimg.format.pack import FOOTER_ENTRY
from deltaimg.ids import EntryNumbers
from deltaimg.repo.index import StoredContent
from deltaimg.repo.object_kinds import MAP
from deltaimg.repo.repository import Repository, SnapshotRef

_SLOT_BYTES, _SIGNED_RECORD_BYTES = 16, 18
"""What each slot and each record takes in a signature."""
_DOCUMENT_BYTES = 1024
"""About what a manifest takes."""


class SnapshotPlan(Struct, frozen=True):
    """What is copied for one snapshot."""

    ref: SnapshotRef
    manifest: Manifest
    data: bytes
    """The manifest as it is in the source."""
    needed: EntryNumbers
    """Records that the destination lacks, ascending; those that earlier plans bring included."""
    copied: EntryNumbers
    """Those of them that no earlier plan brings."""
    maps: tuple[str, ...]
    """Map layers that the destination lacks, oldest first."""


class Amount(Struct):
    """How much is sent: bytes and objects of all kinds; and what of it an earlier run has sent."""

    sent_bytes: int = 0
    objects: int = 0
    arrived_bytes: int = 0
    """Records that lie in packs of the destination that no index has yet."""
    whole_packs: set[str] = field(default_factory=set)
    """Packs that are sent as they are, by digest."""


class Source:
    """The source as a run finds it."""

    def __init__(self, repository: Repository, content: StoredContent) -> None:
        self.repository = repository
        self.content = content
        self.maps = SourceMaps(repository, content.index)


class Destination(Struct):
    """The destination as a run finds it, under the lock of an image; updated as content arrives."""

    content: StoredContent
    map_names: dict[str, str]
    """Digests of the map layers that are there and stay, by their digests in the source."""
    snapshots: frozenset[SnapshotRef]
    is_alike: bool = True
    """Whether it seals as the source does, so that what is stored there can be stored here as it is."""

    @property
    def is_sound(self) -> bool:
        """Whether all that its index names is there, so that what its snapshots need can be relied on unseen."""
        index = self.content.index
        return not index.damage and not bool(index.is_missing.any())


class Planner:
    """Plans snapshots one after another, in the order in which they are copied."""

    def __init__(self, source: Source, destination: Destination) -> None:
        self._source, self._destination = source, destination
        self._records = NeededRecords(source.content.index, destination.content.index)
        self._is_planned = np.zeros(len(source.content.index), np.bool_)
        self._known: set[tuple[str, ...]] = set()
        """Lists of map layers whose snapshots are there, or were planned before."""
        self._neighbours: set[SnapshotRef] = set()
        self._maps = set(destination.map_names)

    def plan(self, ref: SnapshotRef) -> SnapshotPlan:
        """Return what is copied for a snapshot, over those that were planned before it.

        Raises:
            IntegrityError, ObjectNotFound, UnsupportedFormat, SnapshotError: the source cannot give all of it.
            RepositoryLocked: the destination is about to delete a map layer of this name.
        """
        with locating(self._source.repository):
            manifest, data = self._source.repository.load_manifest_with_bytes(ref)
        pending = self._destination.content.pending_maps.intersection(manifest.maps)
        if pending:
            what = f"map layer {MAP.name_of(min(pending))} of {ref.label}"
            hint = "run 'deltaimg prune' in the destination, then run again"
            raise RepositoryLocked(what, "a prune of the destination, which is about to delete it", hint=hint)
        self._know_neighbour(ref)
        known = self._count_known(manifest.maps)
        with locating(self._source.repository):
            needed = self._records.find(self._source.maps.find_pieces(manifest.maps[known:]))
        copied = EntryNumbers(needed[~self._is_planned[needed]])
        maps = tuple(digest for digest in manifest.maps if digest not in self._maps)
        self._is_planned[copied] = True
        self._maps.update(maps)
        self._known.add(manifest.maps)
        return SnapshotPlan(ref, manifest, data, needed, copied, maps)

    def withdraw(self, plan: SnapshotPlan, lost: EntryNumbers) -> None:
        """Take back the last plan, of which these records could not be copied: no other may rely on it."""
        self._is_planned[lost] = False
        self._maps.difference_update(plan.maps)
        self._known.discard(plan.manifest.maps)

    def _know_neighbour(self, ref: SnapshotRef) -> None:
        """Learn the map layers of the newest snapshot before `ref` that both repositories have."""
        if not self._destination.is_sound:
            return
        common = (each for each in self._destination.snapshots if each.image == ref.image and each < ref)
        neighbour = max(common, default=None)
        if neighbour is None or neighbour in self._neighbours:
            return
        self._neighbours.add(neighbour)
        try:
            manifest = self._source.repository.load_manifest(neighbour)
        except DeltaimgError:
            return  # The source has forgotten it, or cannot read it: then all layers of `ref` are looked at.
        if all(digest in self._destination.map_names for digest in manifest.maps):
            self._known.add(manifest.maps)

    def _count_known(self, maps: tuple[str, ...]) -> int:
        """Return how many of the oldest layers need no look: all layers of a snapshot that is there, or comes before."""
        return next((count for count in range(len(maps), 0, -1) if maps[:count] in self._known), 0)


def measure(plans: Iterable[SnapshotPlan], source: Source, destination: Destination) -> Amount:
    """Return how much plans send, about; nothing is read."""
    amount = Amount()
    packs = dict(destination.content.pack_bytes)
    rows = source.content.index.entries
    for plan in plans:
        for each in choose_packs(
            source.content, destination.content, packs, plan.copied, is_alike=destination.is_alike
        ):
            amount.sent_bytes += each.sent_bytes
            if each.choice is PackChoice.PRESENT:
                amount.arrived_bytes += int(payload_bytes(rows[each.entries]).sum())
            elif each.choice is PackChoice.WHOLE:
                packs[each.name] = source.content.pack_bytes[each.name]
                amount.whole_packs.add(each.name)
                amount.objects += 1
            else:
                amount.sent_bytes += FOOTER_ENTRY.itemsize * len(each.entries)
        slots = int(rows["slots"][plan.copied].sum(dtype=np.int64))
        amount.sent_bytes += slots * _SLOT_BYTES + len(plan.copied) * (_SIGNED_RECORD_BYTES + ENTRY.itemsize)
        amount.sent_bytes += sum(source.content.map_bytes.get(digest, 0) for digest in plan.maps) + _DOCUMENT_BYTES
        amount.objects += len(plan.maps) + 1 + 2 * bool(len(plan.copied))
    return amount
