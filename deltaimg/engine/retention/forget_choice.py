# SPDX-License-Identifier: Apache-2.0
"""Which images a forget covers, and how it decides for each: by a policy, or by the snapshots that were named."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, tzinfo
from functools import partial

from msgspec.structs import replace

from deltaimg.engine.retention.forget import MakePlan
from deltaimg.errors import IntegrityError, ObjectNotFound, SnapshotNotFound, UnsupportedFormat, UsageError
from deltaimg.options.keep import Policy
from deltaimg.repo.groups import expand_images, find_group, load_member_group
from deltaimg.repo.host_arrivals import note_arrivals
from deltaimg.repo.repository import Repository, SnapshotRef
from deltaimg.repo.retention import ForgetPlan, find_moment, plan_named, plan_policy
from deltaimg.repo.selector import check_image_name, select_snapshot
from deltaimg.repo.snapshots import AnySnapshot, Snapshot, load_snapshots


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
    named = expand_images(repository, images)
    for image in named:
        if check_image_name(image) not in known:
            raise SnapshotNotFound(image)

    def apply_policy(snapshots: Sequence[AnySnapshot]) -> ForgetPlan:
        moments = {each.ref: find_moment(each.manifest) for each in snapshots if isinstance(each, Snapshot)}
        image = snapshots[0].ref.image if snapshots else ""
        doubtful = note_arrivals(repository.config.repository_id, image, moments, now) if moments else frozenset()
        return plan_policy(snapshots, policy, now=now, zone=zone, doubtful=doubtful)

    return dict.fromkeys(sorted(set(named) or known), _GroupPlans(repository, apply_policy).make_plan)


class _GroupPlans:
    """Applies a policy to images one after another: what it keeps of one member of a group, it keeps of all."""

    def __init__(self, repository: Repository, apply_policy: MakePlan) -> None:
        self._repository, self._apply_policy = repository, apply_policy
        self._kept: dict[str, frozenset[str]] = {}
        """By image, the times of the snapshots that the policy keeps of it."""

    def make_plan(self, snapshots: Sequence[AnySnapshot]) -> ForgetPlan:
        """Return what is kept of an image, given all of its snapshots."""
        plan = self._apply_policy(snapshots)
        groups = {
            each.ref: each.manifest.group
            for each in snapshots
            if isinstance(each, Snapshot) and each.manifest.group is not None
        }
        others = {image for group in groups.values() for image in group.members} - {plan.image}
        kept = {(image, time) for image in others for time in self._find_kept(image)}
        verdicts = tuple(
            replace(each, rules=("group",))
            if not each.is_kept
            and each.ref in groups
            and any((image, each.ref.time) in kept for image in groups[each.ref].members)
            else each
            for each in plan.verdicts
        )
        return replace(plan, verdicts=verdicts)

    def _find_kept(self, image: str) -> frozenset[str]:
        if image not in self._kept:
            plan = self._apply_policy(list(load_snapshots(self._repository, image)))
            self._kept[image] = frozenset(ref.time for ref in plan.kept)
        return self._kept[image]


def choose_by_name(repository: Repository, selectors: Sequence[str], *, is_forced: bool) -> dict[str, MakePlan]:
    """Return a decision for each image of which a snapshot is named, or one of a group, which is all of its members'.

    The name of an image alone is refused: elsewhere it means the newest snapshot, here it could be read as all of them. So is
    a part of what there is of a snapshot of a group, unless it `is_forced`.
    """
    named: set[SnapshotRef] = set()
    refs = repository.list_snapshots()
    images = {ref.image for ref in refs}
    for selector in selectors:
        of_group = find_group(repository, selector)
        if selector in images or (of_group is not None and selector == of_group.group.name):
            kind = "an image" if selector in images else "a group"
            raise UsageError(
                f"'{selector}' is {kind}, and no single snapshot of it",
                hint=f"'{selector}@latest' is its newest; to forget by policy, add --keep-daily 7 or the like",
            )
        named |= {each.ref for each in of_group.snapshots} if of_group else {select_snapshot(repository, selector)}
    if not is_forced:
        for ref in named:
            _check_group(repository, ref, refs, named)
    return {
        image: partial(plan_named, ids=frozenset(ref.id for ref in named if ref.image == image), is_forced=is_forced)
        for image in sorted({ref.image for ref in named})
    }


def _check_group(
    repository: Repository, ref: SnapshotRef, refs: Sequence[SnapshotRef], named: Collection[SnapshotRef]
) -> None:
    """Raise UsageError where a snapshot is a part of one of a group of which others would stay."""
    try:
        group = load_member_group(repository, ref, refs)
    except (IntegrityError, ObjectNotFound, SnapshotNotFound, UnsupportedFormat):
        return  # It, or another member, is damaged: nothing is broken apart that was whole.
    if group is not None and not group.missing and any(each.ref not in named for each in group.snapshots):
        raise UsageError(
            f"{ref.label} is a part of {group.label}, which would be incomplete without it",
            hint=f"'deltaimg forget {group.label}' forgets all of it; --force forgets this part alone",
        )
