# SPDX-License-Identifier: Apache-2.0
"""Snapshots copied from one repository to another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial

from msgspec.structs import replace

from deltaimg.api.clusters import wrap_executor
from deltaimg.engine.cluster import Cluster
from deltaimg.engine.progress import Progress
from deltaimg.engine.retention.forget import forget_images
from deltaimg.engine.sync.request import SyncEstimate, SyncRequest, SyncResult
from deltaimg.engine.sync.run import plan_sync as plan_sync_of
from deltaimg.engine.sync.run import sync as sync_repositories
from deltaimg.options.definition import validate
from deltaimg.options.keep import Policy
from deltaimg.options.sync import SyncOptions
from deltaimg.repo.repository import Repository, SnapshotRef
from deltaimg.repo.reserve import spending_reserve
from deltaimg.repo.retention import ForgetPlan, plan_named
from deltaimg.repo.snapshots import AnySnapshot


def sync(
    source: Repository,
    destination: Repository,
    options: SyncOptions | None = None,
    policy: Policy | None = None,
    *,
    executor: Executor | Cluster | None = None,
    on_estimate: Callable[[SyncEstimate], None] = lambda _: None,
    progress: Progress | None = None,
) -> SyncResult:
    """Copy the snapshots that `destination` lacks; with `options.delete`, then forget there what `source` has forgotten.

    What cannot be read of the source is in the result's `failed`; all else is copied, and then nothing is forgotten.

    Args:
        policy: only what it keeps of the source is copied; all, without a rule.
        executor: where whole packs are copied: processes that see both repositories. This process, if not given.
        on_estimate: called with what is going to be sent, before it is.
    """
    request = replace(_request(source, destination, options, policy, progress), cluster=wrap_executor(executor))
    result = sync_repositories(request, on_estimate)
    if result.failed or not result.forgotten:
        return replace(result, forgotten=())
    return replace(result, forgotten=_forget(destination, result.forgotten, progress))


def plan_sync(
    source: Repository,
    destination: Repository,
    options: SyncOptions | None = None,
    policy: Policy | None = None,
    *,
    progress: Progress | None = None,
) -> SyncEstimate:
    """Return what `sync` would copy, send and forget; nothing is changed."""
    return plan_sync_of(_request(source, destination, options, policy, progress))


def _request(
    source: Repository,
    destination: Repository,
    options: SyncOptions | None,
    policy: Policy | None,
    progress: Progress | None,
) -> SyncRequest:
    request = SyncRequest(source, destination, options or SyncOptions(), policy or Policy())
    validate(request.options)
    validate(request.policy)
    return request if progress is None else replace(request, progress=progress)


def _forget(repository: Repository, refs: Sequence[SnapshotRef], progress: Progress | None) -> tuple[SnapshotRef, ...]:
    """Forget snapshots, but for those that are pinned; return those that are gone. Raises what forgetting in an image does."""
    plans = {
        image: partial(_plan_unpinned, ids=frozenset(ref.id for ref in refs if ref.image == image))
        for image in sorted({ref.image for ref in refs})
    }
    with spending_reserve(repository):
        results = forget_images(repository, plans, progress=progress)
    for each in results:
        if each.error is not None:
            raise each.error
    return tuple(ref for each in results if each.plan is not None for ref in each.plan.forgotten)


def _plan_unpinned(snapshots: Sequence[AnySnapshot], ids: frozenset[str]) -> ForgetPlan:
    kept = {each.ref.id for each in snapshots if each.pin_reason is not None or each.said.error is not None}
    return plan_named(snapshots, ids - kept)
