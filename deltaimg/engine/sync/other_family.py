# SPDX-License-Identifier: Apache-2.0
"""Copy between families: each snapshot is read, verified, and backed up again under the keys of the destination.

It gets a new id, and keeps time, tags, comment and pin; a snapshot of the same image and time counts as the same. Snapshots are
stored oldest first, since each becomes the base of the next: one that is older than what the destination has of its image is
left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from deltaimg.engine.backup.run import back_up
from deltaimg.engine.content.snapshot import SnapshotContent
from deltaimg.engine.progress import stage
from deltaimg.engine.restore.verify import verify
from deltaimg.engine.retention.annotate import set_pin
from deltaimg.engine.sync.commits import Outcome
from deltaimg.engine.sync.comparison import Compared
from deltaimg.engine.sync.losses import LOSSES, note_loss
from deltaimg.engine.sync.plan import Amount
from deltaimg.engine.sync.request import SyncEstimate, SyncRequest
from deltaimg.engine.sync.selection import Selection
from deltaimg.engine.sync.sides import locating
from deltaimg.engine.sync.snapshot_source import SnapshotSource
from deltaimg.errors import RepositoryDamaged, SnapshotError
from deltaimg.options.backup import BackupOptions
from deltaimg.repo.index import LoadedIndex, load_index
from deltaimg.repo.repository import SnapshotRef
from deltaimg.repo.snapshots import Snapshot, load_snapshot

_VERIFIED_PERCENT = {"sample": 5.0, "all": 100.0}


class OtherFamilyRun:
    """One run that has something to copy."""

    def __init__(self, request: SyncRequest, selection: Selection, outcome: Outcome) -> None:
        self._request, self._outcome = request, outcome
        self._there_count, self._damaged = selection.there_count, selection.damaged
        newest: dict[str, str] = {}
        for ref in request.destination.list_snapshots():
            newest[ref.image] = max(ref.time, newest.get(ref.image, ""))
        self._refs = [ref for ref in selection.refs if ref.time > newest.get(ref.image, "")]
        self._late = [ref for ref in selection.refs if ref.time <= newest.get(ref.image, "")]

    def estimate(self) -> SyncEstimate:
        """Return what is going to be stored: as much as the source has stored for the same snapshots, about."""
        stored_bytes, objects = 0, 0
        with stage(self._request.progress, "reading manifests"):
            for ref in self._refs:
                try:
                    stored_bytes += self._request.source.load_manifest(ref).statistics.stored_bytes
                    objects += 5
                except LOSSES as error:
                    note_loss(self._request.source, error)
        amount = Amount(stored_bytes, objects)
        return SyncEstimate(tuple(self._refs), self._there_count, amount, self._damaged, (), is_other_family=True)

    def copy_all(self) -> Compared:
        """Store snapshot after snapshot; one that cannot be read is noted, and the next is stored."""
        if self._late:
            self._request.progress.warn(
                f"{len(self._late)} snapshots are left out, such as {self._late[0].label}: the destination has newer ones of "
                f"their image, and those of another family are stored oldest first"
            )
        with locating(self._request.source):
            index = load_index(self._request.source)
        stored: list[SnapshotRef] = []
        for ref in self._refs:
            try:
                with locating(self._request.source):
                    snapshot = load_snapshot(self._request.source, ref)
                stored.append(self._copy(snapshot, index))
            except (*LOSSES, SnapshotError) as error:
                if error.located_at != self._request.source.objects.location:
                    raise
                note_loss(self._request.source, error)
                self._outcome.fail(ref, error)
            else:
                self._outcome.copied.append(ref)
        return self._verify(stored)

    def _copy(self, snapshot: Snapshot, index: LoadedIndex) -> SnapshotRef:
        """Back up one snapshot; return what it is in the destination."""
        request, manifest = self._request, snapshot.manifest
        is_new = not request.destination.list_snapshots(manifest.image)
        options = BackupOptions(
            tags=snapshot.tags,
            comment=snapshot.comment,
            taken_at=manifest.taken_at,
            block_bytes=manifest.block_bytes if is_new else None,
            stores_containers=bool(manifest.container),
            allow_live=manifest.is_live,
            allow_shrink=True,
            software=manifest.software,
        )
        with ExitStack() as stack:
            with locating(request.source):
                content = SnapshotContent(request.source, manifest, index)
                reader = stack.enter_context(content.open_in_order(progress=request.progress))
            source = SnapshotSource(request.source, manifest, reader)
            made = back_up(
                request.destination,
                source,
                manifest.image,
                options,
                progress=request.progress,
                clock=request.clock,
                group=manifest.group,
            )
        self._outcome.stored_bytes += made.statistics.stored_bytes
        ref = SnapshotRef.of(made)
        if snapshot.pin_reason is not None:
            set_pin(request.destination, ref, snapshot.pin_reason, clock=request.clock)
        return ref

    def _verify(self, stored: Sequence[SnapshotRef]) -> Compared:
        """Read back what was stored, as far as that is asked for; raises RepositoryDamaged."""
        percent = _VERIFIED_PERCENT.get(self._request.options.verify)
        if percent is None or not stored:
            return Compared()
        destination = self._request.destination
        found = verify(destination, stored, percent=percent, progress=self._request.progress, clock=self._request.clock)
        for each in found:
            if each.damage:
                problem = f"{each.ref.label} was stored, and cannot be read: {each.damage[0].reason}"
                raise RepositoryDamaged(destination.objects.location, problem, hint="'deltaimg check' says more")
        return Compared(read_bytes=sum(each.verified_bytes for each in found))
