# SPDX-License-Identifier: Apache-2.0
"""One prune: finish earlier ones, mark what is reachable, plan, store what is kept, list the rest, delete it once that is safe.

Always  nothing is deleted because of its age; an object is deleted only after two marks found it unreachable.
Always  a prune may be interrupted anywhere: every snapshot stays intact, and the next prune finishes it.
See docs/decisions/0008-how-prune-deletes.md for the order of steps, and why it is safe beside running backups.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from msgspec import Struct

from deltaimg.engine.progress import NoProgress, Progress, stage
from deltaimg.engine.prune.attempt import Attempts, ConfirmImages, accept_images, find_splits, look
from deltaimg.engine.prune.deletion import Waiting, finish, list_waiting
from deltaimg.engine.prune.full_store import carry_out_in_full_store
from deltaimg.engine.prune.plan import PrunePlan, make_plan
from deltaimg.errors import StoreFull
from deltaimg.options.prune import PruneOptions
from deltaimg.repo.annotations import remove_orphans
from deltaimg.repo.leftovers import remove_all_leftovers
from deltaimg.repo.lock import MaintenanceLock
from deltaimg.repo.repository import Repository


class PruneResult(Struct, frozen=True):
    """The result of a prune. Sizes in bytes."""

    plan: PrunePlan
    freed_bytes: int
    """Deleted, including what earlier prunes had listed."""
    written_bytes: int
    waiting: tuple[Waiting, ...]
    """What is pending deletion and still there."""
    duration_s: float


class PruneForecast(Struct, frozen=True):
    """What a prune would do."""

    plan: PrunePlan
    waiting: tuple[Waiting, ...]


def prune(
    repository: Repository,
    options: PruneOptions | None = None,
    *,
    confirm_images: ConfirmImages = accept_images,
    progress: Progress | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> PruneResult:
    """Delete what no snapshot needs.

    Raises:
        RepositoryLocked: another prune or a repair is running. LockLost: another process considered this run dead.
        ReachabilityUnknown: a manifest, map or index object cannot be read; nothing was deleted. StoreError.
    """
    options, progress = options or PruneOptions(), progress or NoProgress()
    started = time.monotonic()
    with MaintenanceLock(repository, "prune", clock()) as lock:
        confirm_images({ref.image for ref in repository.list_snapshots()})
        with stage(progress, "finishing the previous prune"):
            freed = remove_all_leftovers(repository, clock()) + finish(repository, lock, progress)
        attempts = Attempts(repository, lock, confirm_images, progress, clock)
        try:
            outcome = attempts.carry_out(options)
        except StoreFull as error:
            outcome = carry_out_in_full_store(attempts, options, error)
        freed += outcome.freed_bytes + remove_orphans(repository, lock.check)
        waiting = tuple(list_waiting(repository))
    return PruneResult(outcome.plan, freed, outcome.written_bytes, waiting, time.monotonic() - started)


def plan_prune(
    repository: Repository,
    options: PruneOptions | None = None,
    *,
    confirm_images: ConfirmImages = accept_images,
    progress: Progress | None = None,
) -> PruneForecast:
    """Return what a prune would do, and what is pending deletion; nothing is changed."""
    options = options or PruneOptions()
    reachable, inventory = look(repository, confirm_images, progress or NoProgress())
    plan = make_plan(reachable, inventory, options, find_splits(repository, reachable, options))
    return PruneForecast(plan, tuple(list_waiting(repository)))
