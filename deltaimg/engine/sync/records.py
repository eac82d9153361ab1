# SPDX-License-Identifier: Apache-2.0
"""Copy what is selected to a member of the family, image by image: plan, copy records, commit, annotate, copy parity."""

from __future__ import annotations

from collections.abc import Callable, Collection

from msgspec.structs import replace

from deltaimg.engine.progress import stage
from deltaimg.engine.roster_changes import record_changes, warn_of_disagreements
from deltaimg.engine.sync.annotations import copy_annotations
from deltaimg.engine.sync.commits import Committer, Outcome
from deltaimg.engine.sync.copying import RecordCopier
from deltaimg.engine.sync.losses import LOSSES, LostRecords, note_loss
from deltaimg.engine.sync.map_names import find_map_names
from deltaimg.engine.sync.pack_jobs import RemotePacks
from deltaimg.engine.sync.parity import ParityCopier
from deltaimg.engine.sync.plan import Destination, Planner, SnapshotPlan, Source, measure
from deltaimg.engine.sync.request import SyncEstimate, SyncRequest
from deltaimg.engine.sync.selection import Batch, Failure, Selection
from deltaimg.engine.sync.sides import locating
from deltaimg.errors import LockLost, RepositoryLocked, StoreError
from deltaimg.format.manifest import SNAPSHOTS
from deltaimg.repo.index import load_content
from deltaimg.repo.leftovers import remove_leftovers
from deltaimg.repo.lock import ImageLock
from deltaimg.repo.pack_writer import PackWriter
from deltaimg.repo.repository import SnapshotRef
from deltaimg.repo.roster_record import Changes
from deltaimg.repo.stable_packs import StablePacks

_REFUSALS = (*LOSSES, RepositoryLocked)
"""Why one snapshot cannot be planned, whatever holds for others."""


def estimate_copying(request: SyncRequest, selection: Selection) -> SyncEstimate:
    """Return what copying all that is selected sends; nothing is changed."""
    source = _look_at_source(request)
    with locating(request.destination):
        destination = _look(request, selection.there, selection.refs)
    parity = ParityCopier(source) if not request.options.ignores_parity and _is_alike(request) else None
    with stage(request.progress, "finding what is missing"):
        return _estimate(source, destination, selection, parity)


class FamilyRun:
    """One run that has something to copy."""

    def __init__(
        self,
        request: SyncRequest,
        selection: Selection,
        outcome: Outcome,
        on_estimate: Callable[[SyncEstimate], None],
    ) -> None:
        self._request, self._selection, self._outcome = request, selection, outcome
        self._on_estimate: Callable[[SyncEstimate], None] | None = on_estimate
        self._source = _look_at_source(request)
        cluster = request.cluster
        is_alike = _is_alike(request)
        self._remote = (
            None if cluster is None or not is_alike else RemotePacks(cluster, request.source, request.destination)
        )
        self._lost = LostRecords(request.source, len(self._source.content.index))
        self._parity = ParityCopier(self._source) if is_alike and not request.options.ignores_parity else None
        self._there = set(selection.there)

    def copy_all(self) -> None:
        """Copy batch after batch."""
        with locating(self._request.destination):
            for batch in self._selection.batches:
                self._copy_batch(batch)

    def _copy_batch(self, batch: Batch) -> None:
        request, repository = self._request, self._request.destination
        purpose = f"sync from repository {request.source.config.repository_id[:8]}"
        with ImageLock(repository, batch.image, purpose, request.clock(), lists_all=True) as lock:
            repository.objects.make_folder(SNAPSHOTS + batch.image)
            remove_leftovers(repository)
            warn_of_disagreements(repository, batch.image, request.clock(), request.progress)
            with stage(request.progress, "finding what is missing"):
                wanted = batch.refs if self._on_estimate is None else self._selection.refs
                destination = _look(request, self._there.union(self._outcome.copied), wanted, lock)
                estimate = self._estimate_once(destination, batch)
            changes = Changes(unsettled=[each for each in batch.refs if each not in self._there])
            record_changes(repository, lock, request.clock(), request.progress, changes)
            with stage(request.progress, f"copying {batch.image}", estimate.amount.sent_bytes):
                self._copy(batch, lock, destination)
            record_changes(repository, lock, request.clock(), request.progress)
            there = [ref for ref in (*self._there, *self._outcome.copied) if ref.image == batch.image]
            copied = copy_annotations(request.source, repository, lock, batch.image, there)
            self._outcome.stored_bytes += copied.stored_bytes
            if self._parity is not None:
                self._outcome.stored_bytes += self._parity.copy(repository, destination, self._outcome.stored)
            for problem in copied.problems:
                request.progress.warn(problem)

    def _estimate_once(self, destination: Destination, batch: Batch) -> SyncEstimate:
        """Return what a batch sends; report what all of them do, the first time."""
        if self._on_estimate is not None:
            report, self._on_estimate = self._on_estimate, None
            whole = _estimate(self._source, destination, self._selection, self._parity)
            report(whole)
            if len(self._selection.batches) == 1:
                return whole
        return _estimate(self._source, destination, replace(self._selection, batches=(batch,)), self._parity)

    def _copy(self, batch: Batch, lock: ImageLock, destination: Destination) -> None:
        repository, progress, content = self._request.destination, self._request.progress, destination.content
        planner = Planner(self._source, destination)
        put_pack = StablePacks(repository, content.pack_bytes, content.pending_packs)
        now_us = content.index.order_after(self._request.clock)
        with PackWriter(repository, now_us, check_lock=lock.check, put_pack=put_pack, is_repeatable=True) as writer:
            copier = RecordCopier(self._source, destination, writer, self._lost, progress, self._remote)
            committer = Committer(repository, lock, writer, (self._source, destination), self._outcome)
            try:
                with writer.index_if_interrupted(progress.warn, except_for=(StoreError, LockLost)):
                    for ref in batch.refs:
                        self._copy_snapshot(ref, planner, copier, committer)
                    committer.flush()
            finally:
                copier.report()
                self._outcome.stored_bytes += writer.stored_bytes
                self._outcome.stored += writer.stored
                self._outcome.arrived_bytes += copier.arrived_bytes

    def _copy_snapshot(self, ref: SnapshotRef, planner: Planner, copier: RecordCopier, committer: Committer) -> None:
        try:
            plan = planner.plan(ref)
        except _REFUSALS as error:
            note_loss(self._request.source, error)
            self._outcome.fail(ref, error)
            return
        copier.copy(plan.copied)
        problem = self._lost.find(plan.needed)
        if problem is None:
            committer.add(plan)
        else:
            planner.withdraw(plan, self._lost.of(plan.copied))
            self._outcome.fail(ref, problem)


def _look_at_source(request: SyncRequest) -> Source:
    with stage(request.progress, "loading the index"), locating(request.source):
        return Source(request.source, load_content(request.source))


def _look(
    request: SyncRequest,
    there: Collection[SnapshotRef],
    wanted: Collection[SnapshotRef],
    lock: ImageLock | None = None,
) -> Destination:
    """Return what the destination has; what is pending deletion there counts as gone.

    Args:
        there: its snapshots. wanted: those that are to be copied. lock: one that has listed it.
    """
    content = load_content(request.destination, None if lock is None else lock.listing)
    stays = set(content.map_bytes) - content.pending_maps
    names = find_map_names(request.source, request.destination, stays, there, wanted)
    return Destination(content, names, frozenset(there), _is_alike(request))


def _is_alike(request: SyncRequest) -> bool:
    return request.source.objects.is_sealed_like(request.destination.objects)


def _estimate(
    source: Source, destination: Destination, selection: Selection, parity: ParityCopier | None
) -> SyncEstimate:
    """Return what copying all that is selected sends, and which snapshots the source cannot give."""
    planner = Planner(source, destination)
    plans: list[SnapshotPlan] = []
    failed: list[Failure] = list(selection.damaged)
    with source.repository.objects.reading_ahead(ref.object_name for ref in selection.refs):
        for ref in selection.refs:
            try:
                plans.append(planner.plan(ref))
            except _REFUSALS as error:
                note_loss(source.repository, error)
                failed.append(Failure(ref, error))
    amount = measure(plans, source, destination)
    if parity is not None:
        added = parity.measure(destination, amount.whole_packs)
        amount.sent_bytes += added.sent_bytes
        amount.objects += added.objects
    return SyncEstimate(tuple(plan.ref for plan in plans), selection.there_count, amount, tuple(failed), ())
