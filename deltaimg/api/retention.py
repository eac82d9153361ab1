# SPDX-License-Identifier: Apache-2.0
"""Which snapshots are kept, and how the space of the others is freed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from datetime import UTC, datetime, tzinfo
from functools import partial

from deltaimg.api.vanished import find_known, find_vanished, forget_images, refuse_vanished, remember_snapshots
from deltaimg.engine.progress import Progress
from deltaimg.engine.prune.attempt import ConfirmImages, accept_images
from deltaimg.engine.prune.run import PruneForecast, PruneResult
from deltaimg.engine.prune.run import plan_prune as plan_prune_of
from deltaimg.engine.prune.run import prune as prune_repository
from deltaimg.engine.retention.annotate import change_tags, set_pin
from deltaimg.engine.retention.flatten import FlattenResult
from deltaimg.engine.retention.flatten import flatten as flatten_snapshot
from deltaimg.engine.retention.forget import Forgotten, MakePlan
from deltaimg.engine.retention.forget import forget_images as forget_in_images
from deltaimg.engine.retention.forget_choice import choose_by_name, choose_by_policy
from deltaimg.errors import SnapshotNotFound
from deltaimg.options.definition import validate
from deltaimg.options.flatten import FlattenOptions
from deltaimg.options.keep import Policy
from deltaimg.options.prune import PruneOptions
from deltaimg.repo.groups import select_snapshots
from deltaimg.repo.repository import Repository
from deltaimg.repo.reserve import spending_reserve
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
        is_dry_run: change nothing; results have what a prune would then free.
    """
    chosen = choose_by_policy(repository, policy, images, now=now or datetime.now(UTC), zone=zone)
    return _forget(repository, chosen, is_dry_run=is_dry_run, progress=progress)


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
        is_forced: also all snapshots of an image.
    """
    chosen = choose_by_name(repository, selectors, is_forced=is_forced)
    return _forget(repository, chosen, is_dry_run=is_dry_run, progress=progress)


def _forget(
    repository: Repository, chosen: Mapping[str, MakePlan], *, is_dry_run: bool, progress: Progress | None
) -> list[Forgotten]:
    with nullcontext() if is_dry_run else spending_reserve(repository):
        results = forget_in_images(repository, chosen, is_dry_run=is_dry_run, progress=progress)
    if not is_dry_run:
        forget_images(repository, [each.image for each in results if each.plan is not None and not each.plan.kept])
        remember_snapshots(repository)
    return results


def list_meant(repository: Repository, selector: str) -> list[str]:
    """Return what to call each snapshot that a selector means: one of an image, or those of all members of a group."""
    return [f"{ref.image}@{ref.id}" for ref in select_snapshots(repository, selector)]


def pin(repository: Repository, selector: str, reason: str = "") -> Snapshot:
    """Keep a snapshot whatever policies say, and return it."""
    return set_pin(repository, select_snapshot(repository, selector), reason)


def unpin(repository: Repository, selector: str) -> Snapshot:
    """Let policies decide about a snapshot again, and return it."""
    return set_pin(repository, select_snapshot(repository, selector), None)


def tag(repository: Repository, selector: str, *, added: Sequence[str] = (), removed: Sequence[str] = ()) -> Snapshot:
    """Add tags to a snapshot and remove others, and return it. Its manifest stays as it was written."""
    return change_tags(repository, select_snapshot(repository, selector), added=added, removed=removed)


def prune(
    repository: Repository,
    options: PruneOptions | None = None,
    *,
    is_forced: bool = False,
    progress: Progress | None = None,
) -> PruneResult:
    """Delete what no snapshot needs; backups and restores may run meanwhile.

    Args:
        is_forced: also if no snapshot is left, or all those of an image that this host has seen have vanished without a forget.
    """
    confirm = _confirm_images(repository, is_forced=is_forced)
    options = options or PruneOptions()
    validate(options)
    with spending_reserve(repository):
        result = prune_repository(repository, options, confirm_images=confirm, progress=progress)
    if is_forced:
        forget_images(repository, find_vanished(repository))
    return result


def plan_prune(
    repository: Repository,
    options: PruneOptions | None = None,
    *,
    is_forced: bool = False,
    progress: Progress | None = None,
) -> PruneForecast:
    """Return what `prune` would do, and what an earlier one could not delete yet; nothing is changed."""
    confirm = _confirm_images(repository, is_forced=is_forced)
    options = options or PruneOptions()
    validate(options)
    return plan_prune_of(repository, options, confirm_images=confirm, progress=progress)


def flatten(
    repository: Repository,
    selectors: Sequence[str] = (),
    options: FlattenOptions | None = None,
    *,
    progress: Progress | None = None,
) -> list[FlattenResult]:
    """Store the delta records of snapshots (of all, if none are named) again as literals, under the same ids."""
    options = options or FlattenOptions()
    validate(options)
    max_depth = options.max_depth or 0
    if selectors:
        refs = [ref for each in selectors for ref in select_snapshots(repository, each)]
        return [flatten_snapshot(repository, ref, max_depth=max_depth, progress=progress) for ref in refs]
    results = []
    for ref in repository.list_snapshots():
        with suppress(SnapshotNotFound):  # It was forgotten since it was listed.
            results.append(flatten_snapshot(repository, ref, max_depth=max_depth, progress=progress))
    return results


def _confirm_images(repository: Repository, *, is_forced: bool) -> ConfirmImages:
    return accept_images if is_forced else partial(refuse_vanished, repository, find_known(repository))
