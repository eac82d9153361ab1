# SPDX-License-Identifier: Apache-2.0
"""Commit snapshots once all that they need is in the destination: map layers, then the manifest, then its annotation.

Snapshots that bring little are committed together, so that not each makes an index object of its own.

Always  what a manifest refers to is durable and in the index before the manifest appears.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

from deltaimg.engine.commit import commit_snapshot
from deltaimg.engine.sync.losses import LOSSES, note_loss
from deltaimg.engine.sync.plan import Destination, SnapshotPlan, Source
from deltaimg.engine.sync.selection import Failure
from deltaimg.errors import DeltaimgError, ObjectExists
from deltaimg.model import MIB
from deltaimg.repo.lock import ImageLock
from deltaimg.repo.object_kinds import MAP
from deltaimg.repo.pack_writer import PackWriter
from deltaimg.repo.repository import Repository, SnapshotRef

_GROUP_BYTES = 32 * MIB
"""Snapshots wait until so much was stored for them together."""


@dataclass(slots=True)
class Outcome:
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
            if digest not in self._destination.maps:
                name = MAP.name_of(digest)
                _, layers[digest] = self._source.repository.objects.get_with_bytes(MAP, name)
        return layers

    def _commit(self, plan: SnapshotPlan, layers: dict[str, bytes]) -> None:
        for digest, data in layers.items():
            with suppress(ObjectExists):
                self._outcome.stored_bytes += self._repository.objects.put_bytes(MAP.name_of(digest), [data])
                self._outcome.stored.append(MAP.name_of(digest))
            self._destination.maps.add(digest)
        with suppress(ObjectExists):  # a run whose lock was lost since committed it just now
            commit_snapshot(self._repository, self._lock, plan.manifest, plan.data)
            self._outcome.stored_bytes += len(plan.data)
            self._outcome.stored.append(plan.ref.object_name)
        self._outcome.copied.append(plan.ref)
