# SPDX-License-Identifier: Apache-2.0
"""Which images a forget covers, and how it decides for each: by a policy, or by the snapshots that were named."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, tzinfo
from functools import partial

from deltaimg.engine.retention.forget import MakePlan
from deltaimg.errors import SnapshotNotFound, UsageError
from deltaimg.options.keep import Policy
from deltaimg.repo.host_arrivals import note_arrivals
from deltaimg.repo.repository import Repository
from deltaimg.repo.retention import AnySnapshot, ForgetPlan, find_moment, plan_named, plan_policy
from deltaimg.repo.selector import check_image_name, select_snapshot
from deltaimg.repo.snapshots import Snapshot


def choose_by_policy(
    repository: Repository,
    policy: Policy,
    images: Sequence[str],
    *,
    now: datetime,
    zone: tzinfo | None,
) -> dict[str, MakePlan]:
    """Return a decision for each of `images`, or for all if none are named; raises SnapshotNotFound for one without any."""
    if policy.is_empty:
        raise UsageError("a policy without a rule keeps nothing", hint="Policy(daily=7, weekly=4), for example")
    known = {ref.image for ref in repository.list_snapshots()}
    for image in images:
        if check_image_name(image) not in known:
            raise SnapshotNotFound(image)

    def make_plan(snapshots: Sequence[AnySnapshot]) -> ForgetPlan:
        moments = {each.ref: find_moment(each.manifest) for each in snapshots if isinstance(each, Snapshot)}
        image = snapshots[0].ref.image if snapshots else ""
        doubtful = note_arrivals(repository.config.repository_id, image, moments, now) if moments else frozenset()
        return plan_policy(snapshots, policy, now=now, zone=zone, doubtful=doubtful)

    return dict.fromkeys(sorted(set(images) or known), make_plan)


def choose_by_name(repository: Repository, selectors: Sequence[str], *, is_forced: bool) -> dict[str, MakePlan]:
    """Return a decision for each image of which a snapshot is named.

    The name of an image alone is refused: elsewhere it means the newest snapshot, here it could be read as all of them.
    """
    named: dict[str, set[str]] = {}
    images = {ref.image for ref in repository.list_snapshots()}
    for selector in selectors:
        if selector in images:
            raise UsageError(
                f"'{selector}' is an image, and no single snapshot of it",
                hint=f"'{selector}@latest' is its newest; to forget by policy, add --keep-daily 7 or the like",
            )
        ref = select_snapshot(repository, selector)
        named.setdefault(ref.image, set()).add(ref.id)
    return {image: partial(plan_named, ids=frozenset(ids), is_forced=is_forced) for image, ids in sorted(named.items())}
