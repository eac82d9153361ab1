# SPDX-License-Identifier: Apache-2.0
"""Commit snapshots once all that they need is in the destination: map layers, then the manifest, then its annotation.

Snapshots that bring little are committed together, so that not each makes an index object of its own.

Always  what a manifest refers to is durable and in the index before the manifest appears.
"""

from __future__ import annotations

from contextlib import suppress

from msgspec import Struct, field
from msgspec.structs import replace

from deltaimg.engine.commit import commit_snapshot
from deltaimg.engine.sync.losses import LOSSES, note_loss
from deltaimg.engine.sync.plan import Destination, SnapshotPlan, Source
from deltaimg.engine.sync.selection import Failure
from deltaimg.errors import DeltaimgError, ObjectExists
from deltaimg.format.sealing import find_host
from deltaimg.model import MIB
from deltaimg.repo.lock import ImageLock
from deltaimg.repo.object_kinds import MANIFEST, MAP
from deltaimg.repo.pack_writer import PackWriter
from deltaimg.repo.repository import Repository, SnapshotRef

_GROUP_BYTES = 32 * MIB
"""Snapshots wait until so much was stored for them together."""


class Outcome(Struct):
    """What became of the snapshots of a run so far."""

    copied: list[SnapshotRef] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    stored_bytes: int = 0
    """By how much the destination grew."""
    stored: list[str] = field(default_factory=list)
    """Names of the objects that were stored."""
    arrived_bytes: int = 0
    """Records that an earlier run had sent, and that were only indexed."""

    def fail(self, ref: SnapshotRef, error: DeltaimgError) -> None:
        """Note why a snapshot was not copied."""
        self.failed.append(Failure(ref, error))


class Committer:
    """Takes plans whose records were handed to the writer, and commits them in this order."""

    def __init__(
        self,
        repository: Repository,
        lock: ImageLock,
        writer: PackWriter,
        sides: tuple[Source, Destination],
        outcome: Outcome,
    ) -> None:
        """Args: repository, lock: the destination, and its lock of the image."""
        self._repository, self._lock, self._writer = repository, lock, writer
        self._source, self._destination = sides
        self._outcome = outcome
        self._waiting: list[SnapshotPlan] = []

    def add(self, plan: SnapshotPlan) -> None:
        """Take a plan; commit it and those before it once they are worth an index object."""
        self._waiting.append(plan)
        if self._writer.unindexed_bytes >= _GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        """Commit all plans that were taken. Raises LockLost; then some of them are not committed."""
        self._writer.finish()
        while self._waiting:
            plan = self._waiting.pop(0)
            try:
                layers = self._read_maps(plan)
            except LOSSES as error:
                note_loss(self._source.repository, error)
                error.locate(self._source.repository.objects.location)
                self._outcome.fail(plan.ref, error)
                continue
            self._commit(plan, layers)

    def _read_maps(self, plan: SnapshotPlan) -> dict[str, bytes]:
        """Return the map layers that the destination still lacks; raises what the source says of one that it cannot give."""
        layers = {}
        for digest in plan.manifest.maps:
            if digest not in self._destination.map_names:
                objects, name = self._source.repository.objects, MAP.name_of(digest)
                if self._destination.is_alike:
                    _, layers[digest] = objects.get_with_bytes(MAP, name)
                else:
                    layers[digest] = objects.get_opened(MAP, name)
        return layers

    def _commit(self, plan: SnapshotPlan, layers: dict[str, bytes]) -> None:
        for digest, data in layers.items():
            self._destination.map_names[digest] = self._put_map(digest, data)
        with suppress(ObjectExists):  # a run whose lock was lost since committed it just now
            self._outcome.stored_bytes += self._put_manifest(plan)
            self._outcome.stored.append(plan.ref.object_name)
        self._outcome.copied.append(plan.ref)

    def _put_map(self, digest: str, data: bytes) -> str:
        """Store a map layer, and return its digest here; it may be there already where that is the same."""
        if not self._destination.is_alike:
            named, stored_bytes = self._repository.objects.put_named(MAP, [data])
            self._note_stored(named, stored_bytes)
            return named
        with suppress(ObjectExists):
            self._note_stored(digest, self._repository.objects.put_bytes(MAP.name_of(digest), [data]))
        return digest

    def _put_manifest(self, plan: SnapshotPlan) -> int:
        """Commit a snapshot, whose manifest names its layers as they are named here; return its size."""
        if self._destination.is_alike and not find_host(plan.data):
            commit_snapshot(self._repository, self._lock, plan.manifest, plan.data)
            return len(plan.data)
        # Also what a write-only host sealed: it is none of the destination's, and whoever syncs vouches for it.
        names = self._destination.map_names
        manifest = replace(plan.manifest, maps=tuple(names[digest] for digest in plan.manifest.maps))
        commit_snapshot(self._repository, self._lock, manifest)
        return self._repository.objects.count_bytes(MANIFEST, manifest)

    def _note_stored(self, digest: str, stored_bytes: int) -> None:
        self._outcome.stored_bytes += stored_bytes
        self._outcome.stored.append(MAP.name_of(digest))
