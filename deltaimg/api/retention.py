# SPDX-License-Identifier: Apache-2.0
"""What is kept, and how the space of the rest comes back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo

from deltaimg.engine.progress import Progress
from deltaimg.engine.prune.options import MAX_UNUSED_PERCENT, PruneOptions, Trim
from deltaimg.engine.prune.run import PruneForecast, PruneResult
from deltaimg.engine.prune.run import plan_prune as plan_prune_of
from deltaimg.engine.prune.run import prune as prune_repository
from deltaimg.engine.retention.annotate import set_pin
from deltaimg.engine.retention.flatten import FlattenResult
from deltaimg.engine.retention.flatten import flatten as flatten_snapshot
from deltaimg.engine.retention.forget import Forgotten, forget_images
from deltaimg.engine.retention.forget_choice import choose_by_name, choose_by_policy
from deltaimg.errors import UsageError
from deltaimg.repo.repository import Repository
from deltaimg.repo.retention import Policy
from deltaimg.repo.selector import select_snapshot
from deltaimg.repo.snapshots import Snapshot


def forget(
    repository: Repository,
    policy: Policy,
    images: Sequence[str] = (),
    *,
    now: datetime | None = None,
    zone: tzinfo | None = None,
    is_dry_run: bool = False,
    progress: Progress | None = None,
) -> list[Forgotten]:
    """Forget the snapshots of images (all, if none are named) that a policy does not keep, each image by itself.

    An image that fails does not keep the others waiting: its result has the error.

    Args:
        now: the moment from which on a snapshot is one of the future.
        zone: whose days and hours count; that of this host if none is given.
        is_dry_run: change nothing; results tell what a prune would then free.
    """
    chosen = choose_by_policy(repository, policy, images, now=now or datetime.now(UTC), zone=zone)
    return forget_images(repository, chosen, is_dry_run=is_dry_run, progress=progress)


def forget_snapshots(
    repository: Repository,
    selectors: Sequence[str],
    *,
    is_forced: bool = False,
    is_dry_run: bool = False,
    progress: Progress | None = None,
) -> list[Forgotten]:
    """Forget the snapshots that are named, damaged ones as well; as `forget` otherwise.

    Args:
        is_forced: nothing need be left of an image.
    """
    chosen = choose_by_name(repository, selectors, is_forced=is_forced)
    return forget_images(repository, chosen, is_dry_run=is_dry_run, progress=progress)


def pin(repository: Repository, selector: str, reason: str = "") -> Snapshot:
    """Keep a snapshot whatever policies say, and return it."""
    return set_pin(repository, select_snapshot(repository, selector), reason)


def unpin(repository: Repository, selector: str) -> Snapshot:
    """Let policies decide about a snapshot again, and return it."""
    return set_pin(repository, select_snapshot(repository, selector), None)


def prune(
    repository: Repository,
    *,
    max_unused_percent: float = MAX_UNUSED_PERCENT,
    max_repack_bytes: int | None = None,
    trim: str = Trim.AUTO.value,
    progress: Progress | None = None,
) -> PruneResult:
    """Delete what no snapshot needs; backups and restores may go on meanwhile.

    Args:
        max_unused_percent: of what all packs hold may stay unused; beyond it, packs are repacked.
        max_repack_bytes: write at most so much.
        trim: what becomes of records of which only part is needed: 'auto' stores them again without the rest where that frees
            enough for what it costs, 'full' wherever it frees anything, 'none' nowhere.
    """
    options = _prune_options(max_unused_percent, max_repack_bytes, trim)
    return prune_repository(repository, options, progress=progress)


def plan_prune(
    repository: Repository,
    *,
    max_unused_percent: float = MAX_UNUSED_PERCENT,
    max_repack_bytes: int | None = None,
    trim: str = Trim.AUTO.value,
    progress: Progress | None = None,
) -> PruneForecast:
    """Return what `prune` would do, and what an earlier one could not delete yet; nothing is changed."""
    options = _prune_options(max_unused_percent, max_repack_bytes, trim)
    return plan_prune_of(repository, options, progress=progress)


def flatten(
    repository: Repository,
    selectors: Sequence[str] = (),
    *,
    max_depth: int = 0,
    progress: Progress | None = None,
) -> list[FlattenResult]:
    """Make snapshots (all, if none are named) need no delta records deeper than `max_depth`."""
    refs = [select_snapshot(repository, each) for each in selectors] or repository.list_snapshots()
    return [flatten_snapshot(repository, ref, max_depth=max_depth, progress=progress) for ref in refs]


def _prune_options(max_unused_percent: float, max_repack_bytes: int | None, trim: str) -> PruneOptions:
    if not 0 <= max_unused_percent <= 100:
        raise UsageError(f"{max_unused_percent:g} percent unused: it must be 0 to 100")
    try:
        return PruneOptions(max_unused_percent / 100, max_repack_bytes, Trim(trim))
    except ValueError:
        names = ", ".join(each.value for each in Trim)
        raise UsageError(f"'{trim}' is not a way to trim records", hint=f"it is one of {names}") from None
