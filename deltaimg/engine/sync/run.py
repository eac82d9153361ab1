# SPDX-License-Identifier: Apache-2.0
"""One sync between two repositories, stage by stage: select, plan, copy records, commit snapshots, compare.

    select      selection.py    which snapshots of the source, in which order
    plan        plan.py         what the destination lacks for each: records with their delta sources, map layers
    copy        copying.py      whole packs, or records gathered into new ones; none is decoded
    commit      commits.py      index, then map layers, then the manifest, of a few snapshots at a time
    compare     comparison.py   what was sent with what is there, if that is asked for: digests of the store, a sample, or all

Between repositories of different families nothing can be copied: snapshots are read and stored again (other_family.py).

Always  the destination is valid after every step: a snapshot appears once all that it needs is there.
Always  what an interrupted run has sent is found by the next one, in the index or as a pack under its name, and not sent again.
Locks   a reader's lock in the source; in the destination that of one image at a time, which keeps prunes from deleting
        what a snapshot is to refer to, exactly as a backup's does.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from deltaimg.engine.progress import stage
from deltaimg.engine.roster_changes import warn_of_disagreements, warn_of_exchange
from deltaimg.engine.sync.commits import Outcome
from deltaimg.engine.sync.comparison import Compared, compare
from deltaimg.engine.sync.forgotten import find_forgotten
from deltaimg.engine.sync.losses import find_gone
from deltaimg.engine.sync.other_family import OtherFamilyRun
from deltaimg.engine.sync.plan import Amount
from deltaimg.engine.sync.records import FamilyRun, estimate_copying
from deltaimg.engine.sync.request import SyncEstimate, SyncRequest, SyncResult
from deltaimg.engine.sync.selection import Failure, Selection, select
from deltaimg.engine.sync.sides import locating
from deltaimg.errors import UsageError
from deltaimg.repo.family import is_same_family
from deltaimg.repo.lock import ReaderLock
from deltaimg.repo.lock_holder import list_locks
from deltaimg.repo.repository import SnapshotRef
from deltaimg.repo.rosters import find_withheld


def sync(request: SyncRequest, on_estimate: Callable[[SyncEstimate], None] = lambda _: None) -> SyncResult:
    """Copy the snapshots that the destination lacks.

    Args:
        on_estimate: called once, before anything is sent.

    Raises:
        UsageError: both are one repository; or an option that has no meaning between families. FamilyConflict: see
            `is_same_family`. DeletionRefused: see `find_forgotten`.
        RepositoryLocked: another process works on an image in the destination. LockLost: one considered this run dead.
        StoreError: either store fails. What was committed before stays.
    """
    started = time.monotonic()
    with ReaderLock(request.source, "sync", request.clock()) as reader:
        chosen = _choose(request, reader)
        selection, outcome, compared = chosen.selection, Outcome(), Compared()
        if not selection.batches:
            on_estimate(_estimate(request, chosen))
        elif chosen.is_family:
            if request.options.verify == "sample":
                request.destination.objects.note_digests()
            FamilyRun(
                request, selection, outcome, lambda found: on_estimate(replace(found, forgotten=chosen.forgotten))
            ).copy_all()
            compared = _compare(request, outcome)
        else:
            run = OtherFamilyRun(request, selection, outcome)
            on_estimate(run.estimate())
            compared = run.copy_all()
        failed = _settle_failures(request, reader, (*selection.damaged, *outcome.failed))
    return SyncResult(
        tuple(outcome.copied),
        selection.there_count,
        failed,
        outcome.stored_bytes,
        outcome.arrived_bytes,
        compared,
        chosen.forgotten,
        time.monotonic() - started,
    )


def plan_sync(request: SyncRequest) -> SyncEstimate:
    """Return what a sync would do; nothing is changed but for the reader's lock in the source."""
    with ReaderLock(request.source, "sync", request.clock()) as reader:
        estimate = _estimate(request, _choose(request, reader))
        return replace(estimate, failed=_settle_failures(request, reader, estimate.failed))


def _settle_failures(request: SyncRequest, reader: ReaderLock, failed: tuple[Failure, ...]) -> tuple[Failure, ...]:
    """Return what could not be copied, without what was only forgotten since it was listed, as by a policy at the same hour."""
    if not failed:
        return ()
    reader.check()  # What is missing may have been deleted by a prune.
    with locating(request.source):
        gone = find_gone(request.source, [each.ref for each in failed])
    for ref in sorted(gone):
        location = request.source.objects.location
        request.progress.warn(f"{ref.label} is not copied: it was forgotten in {location} meanwhile")
    return tuple(each for each in failed if each.ref not in gone)


class _Chosen(Struct, frozen=True):
    """What a run is about."""

    selection: Selection
    is_family: bool
    forgotten: tuple[SnapshotRef, ...]


def _choose(request: SyncRequest, reader: ReaderLock) -> _Chosen:
    source, destination, options = request.source, request.destination, request.options
    has_one_id = source.config.repository_id == destination.config.repository_id
    if has_one_id and any(each.token == reader.token for each in list_locks(destination.objects)):
        raise UsageError(f"{source.objects.location} and {destination.objects.location} are one repository")
    is_family = is_same_family(source, destination)
    if not is_family and (options.delete or options.newest_first):
        raise UsageError(
            f"{source.objects.location} and {destination.objects.location} are of different families, "
            f"so that snapshots are stored again, oldest first: {'--delete' if options.delete else '--newest-first'} has no "
            "meaning",
            hint="'deltaimg init --like' makes a repository of the same family",
        )
    with stage(request.progress, "listing snapshots"):
        selection = select(source, destination, options, request.policy, is_family=is_family, now=request.clock())
        places = source.objects.location, destination.objects.location
        withheld = _warn_of_source(request, selection)
        return _Chosen(selection, is_family, find_forgotten(selection, options, *places, withheld))


def _warn_of_source(request: SyncRequest, selection: Selection) -> set[str]:
    """Warn of what the source withholds; return the ids of snapshots that it has lost without a forget."""
    images = {ref.image for ref in selection.source}
    if selection.named:
        images &= selection.named
    withheld: set[str] = set()
    with locating(request.source):
        warn_of_exchange(request.source, request.progress)
        for image in sorted(images):
            warn_of_disagreements(request.source, image, request.clock(), request.progress)
            withheld |= find_withheld(request.source, image)
    return withheld


def _estimate(request: SyncRequest, chosen: _Chosen) -> SyncEstimate:
    selection = chosen.selection
    if not selection.batches:
        return SyncEstimate((), selection.there_count, Amount(), selection.damaged, chosen.forgotten)
    if not chosen.is_family:
        return OtherFamilyRun(request, selection, Outcome()).estimate()
    return replace(estimate_copying(request, selection), forgotten=chosen.forgotten)


def _compare(request: SyncRequest, outcome: Outcome) -> Compared:
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
