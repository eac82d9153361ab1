# SPDX-License-Identifier: Apache-2.0
"""One sync between two repositories of a family, stage by stage: select, plan, copy records, commit snapshots.

    select      selection.py    which snapshots of the source, in which order
    plan        plan.py         what the destination lacks for each: records with their delta sources, map layers
    copy        copying.py      whole packs, or records gathered into new ones; none is decoded
    commit      commits.py      index, then map layers, then the manifest, of a few snapshots at a time

Always  the destination is valid after every step: a snapshot appears once all that it needs is there.
Always  what an interrupted run has sent is found by the next one, in the index or as a pack under its name, and not sent again.
Locks   a reader's lock in the source; in the destination that of one image at a time, which keeps prunes from deleting
        what a snapshot is to refer to, exactly as a backup's does.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from deltaimg.engine.progress import NoProgress, Progress, stage
from deltaimg.engine.sync.annotations import copy_annotations
from deltaimg.engine.sync.commits import Committer, Outcome
from deltaimg.engine.sync.comparison import Compared, compare
from deltaimg.engine.sync.copying import RecordCopier
from deltaimg.engine.sync.forgotten import find_forgotten
from deltaimg.engine.sync.losses import LOSSES, LostRecords, note_loss
from deltaimg.engine.sync.parity import ParityCopier
from deltaimg.engine.sync.plan import Amount, Destination, Planner, SnapshotPlan, Source, measure
from deltaimg.engine.sync.selection import Batch, Failure, Selection, select
from deltaimg.engine.sync.sides import locating
from deltaimg.errors import LockLost, RepositoryLocked, StoreError, UsageError
from deltaimg.format.manifest import SNAPSHOTS
from deltaimg.options.keep import Policy
from deltaimg.options.sync import SyncOptions
from deltaimg.repo.family import is_same_family
from deltaimg.repo.index import load_content
from deltaimg.repo.leftovers import remove_leftovers
from deltaimg.repo.lock import ImageLock, ReaderLock
from deltaimg.repo.lock_holder import list_locks
from deltaimg.repo.pack_writer import PackWriter
from deltaimg.repo.repository import Repository, SnapshotRef
from deltaimg.repo.stable_packs import StablePacks

_REFUSALS = (*LOSSES, RepositoryLocked)
"""Why one snapshot cannot be planned, whatever holds for others."""


@dataclass(frozen=True, slots=True)
class SyncEstimate:
    """What a sync is going to send, about."""

    snapshots: tuple[SnapshotRef, ...]
    """Those that are copied, in order."""
    there_count: int
    """Snapshots that are chosen and were copied before."""
    amount: Amount
    failed: tuple[Failure, ...]
    """Those that the source cannot give."""
    forgotten: tuple[SnapshotRef, ...]
    """Those of the destination that the source has forgotten, where these are to be forgotten there."""


@dataclass(frozen=True, slots=True)
class SyncResult:
    """What a sync did."""

    copied: tuple[SnapshotRef, ...]
    there_count: int
    failed: tuple[Failure, ...]
    stored_bytes: int
    """By how much the destination grew."""
    arrived_bytes: int
    """Records that an earlier run had sent, and that this one only indexed."""
    compared: Compared
    """What was compared at the end."""
    forgotten: tuple[SnapshotRef, ...]
    """Snapshots of the destination that the source has forgotten: to be forgotten, which the caller does."""
    duration_s: float


@dataclass(frozen=True, slots=True)
class SyncRequest:
    """What to copy from where to where."""

    source: Repository
    destination: Repository
    options: SyncOptions = field(default_factory=SyncOptions)
    policy: Policy = field(default_factory=Policy)
    progress: Progress = field(default_factory=NoProgress)
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)


def sync(request: SyncRequest, on_estimate: Callable[[SyncEstimate], None] = lambda _: None) -> SyncResult:
    """Copy the snapshots that the destination lacks.

    Args:
        on_estimate: called once, before anything is sent.

    Raises:
        UsageError: both are one repository, or of different families. FamilyConflict: see `is_same_family`.
        DeletionRefused: see `find_forgotten`.
        RepositoryLocked: another process works on an image in the destination. LockLost: one considered this run dead.
        StoreError: either store fails. What was committed before stays.
    """
    started = time.monotonic()
    with ReaderLock(request.source, "sync", request.clock()) as reader:
        selection, forgotten = _select(request, reader)
        outcome, compared = Outcome(), Compared()
        if selection.batches:
            _Run(request, selection, outcome, lambda found: on_estimate(replace(found, forgotten=forgotten))).copy_all()
            compared = _verify(request, outcome)
        else:
            on_estimate(_estimate_nothing(selection, forgotten))
        if outcome.failed:
            reader.check()  # What is missing may have been deleted by a prune.
    return SyncResult(
        tuple(outcome.copied),
        selection.there_count,
        (*selection.damaged, *outcome.failed),
        outcome.stored_bytes,
        outcome.arrived_bytes,
        compared,
        forgotten,
        time.monotonic() - started,
    )


def plan_sync(request: SyncRequest) -> SyncEstimate:
    """Return what a sync would do; nothing is changed but for the reader's lock in the source."""
    with ReaderLock(request.source, "sync", request.clock()) as reader:
        selection, forgotten = _select(request, reader)
        if not selection.batches:
            return _estimate_nothing(selection, forgotten)
        source = _look_at_source(request)
        with locating(request.destination):
            destination = _look(request.destination, selection.there)
        parity = None if request.options.ignores_parity else ParityCopier(source)
        with stage(request.progress, "finding what is missing"):
            estimate = _estimate(source, destination, selection, parity)
        if estimate.failed:
            reader.check()
        return replace(estimate, forgotten=forgotten)


def _select(request: SyncRequest, reader: ReaderLock) -> tuple[Selection, tuple[SnapshotRef, ...]]:
    source, destination = request.source, request.destination
    has_one_id = source.config.repository_id == destination.config.repository_id
    if has_one_id and any(each.token == reader.token for each in list_locks(destination.objects)):
        raise UsageError(f"{source.objects.location} and {destination.objects.location} are one repository")
    if not is_same_family(source, destination):
        raise UsageError(
            f"{source.objects.location} and {destination.objects.location} are of different families",
            hint="'deltaimg init --like' makes a repository of the same family",
        )
    with stage(request.progress, "listing snapshots"):
        selection = select(source, destination, request.options, request.policy, now=request.clock())
        places = source.objects.location, destination.objects.location
        return selection, find_forgotten(selection, request.options, *places)


def _verify(request: SyncRequest, outcome: Outcome) -> Compared:
    """Compare what was sent with what is there, as far as that is asked for; raises RepositoryDamaged."""
    how = request.options.verify
    if how == "none" or not outcome.stored:
        return Compared()
    with locating(request.destination):
        return compare(
            request.destination,
            outcome.stored,
            reads_all=how == "all",
            progress=request.progress,
            chance=random.Random(),
        )


def _look_at_source(request: SyncRequest) -> Source:
    with stage(request.progress, "loading the index"), locating(request.source):
        return Source(request.source, load_content(request.source))


def _look(repository: Repository, snapshots: Iterable[SnapshotRef]) -> Destination:
    """Return what the destination has; what is pending deletion there counts as gone."""
    content = load_content(repository)
    return Destination(content, set(content.map_bytes) - content.pending_maps, frozenset(snapshots))


def _estimate_nothing(selection: Selection, forgotten: tuple[SnapshotRef, ...]) -> SyncEstimate:
    return SyncEstimate((), selection.there_count, Amount(), selection.damaged, forgotten)


def _estimate(
    source: Source, destination: Destination, selection: Selection, parity: ParityCopier | None
) -> SyncEstimate:
    """Return what copying all that is selected sends, and which snapshots the source cannot give."""
    planner = Planner(source, destination)
    plans: list[SnapshotPlan] = []
    failed: list[Failure] = list(selection.damaged)
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


class _Run:
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
        self._lost = LostRecords(request.source, len(self._source.content.index))
        self._parity = None if request.options.ignores_parity else ParityCopier(self._source)
        self._there = set(selection.there)

    def copy_all(self) -> None:
        """Copy batch after batch."""
        with locating(self._request.destination):
            for batch in self._selection.batches:
                self._copy_batch(batch)

    def _copy_batch(self, batch: Batch) -> None:
        request, repository = self._request, self._request.destination
        purpose = f"sync from repository {request.source.config.repository_id[:8]}"
        with ImageLock(repository, batch.image, purpose, request.clock()) as lock:
            repository.objects.make_folder(SNAPSHOTS + batch.image)
            remove_leftovers(repository)
            with stage(request.progress, "finding what is missing"):
                destination = _look(repository, self._there)
                estimate = self._estimate_once(destination, batch)
            with stage(request.progress, f"copying {batch.image}", estimate.amount.sent_bytes):
                self._copy(batch, lock, destination)
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
        with PackWriter(repository, now_us, check_lock=lock.check, put_pack=put_pack) as writer:
            copier = RecordCopier(self._source, destination, writer, self._lost, progress)
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
