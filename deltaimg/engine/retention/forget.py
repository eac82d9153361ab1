# SPDX-License-Identifier: Apache-2.0
"""Forget snapshots anywhere in a chain: their manifests are removed, and nothing else changes.

Every snapshot lists all that it needs, so that no other one is read or affected: forgetting works
beside damaged snapshots and on a full disk, and costs one delete for each snapshot, or for many where the store can do that.
`prune` deletes unreachable content.

Crash   a manifest is there or is not; a snapshot's annotations are deleted after it. Running again finishes the work.
Locks   the image's, held from the reading of its manifests to the end, and checked between removals (`Objects.delete_all`)
        and after the last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from msgspec import Struct
from msgspec.structs import replace

from deltaimg.engine.progress import NoProgress, Progress
from deltaimg.engine.retention.reclaimable import ReclaimableGroup, find_reclaimable
from deltaimg.engine.roster_changes import record_changes
from deltaimg.errors import (
    DeltaimgError,
    IntegrityError,
    LockLost,
    ObjectNotFound,
    OnlyWrites,
    RepositoryLocked,
    SnapshotError,
)
from deltaimg.repo.annotations import list_annotations, remove_annotations
from deltaimg.repo.lock import ImageLock
from deltaimg.repo.repository import Repository, SnapshotRef
from deltaimg.repo.retention import ForgetPlan
from deltaimg.repo.roster_record import Changes
from deltaimg.repo.snapshots import AnySnapshot, DamagedSnapshot, load_snapshots

MakePlan = Callable[[Sequence[AnySnapshot]], ForgetPlan]
"""Decides which snapshots of an image are kept; called with all of them, oldest first."""


class Forgotten(Struct, frozen=True):
    """The result for one image; of a dry run, the plan."""

    image: str
    plan: ForgetPlan | None
    """None if there is an error."""
    error: DeltaimgError | None = None
    reclaimable: tuple[ReclaimableGroup, ...] | None = None
    """What a prune would then free; known in a dry run only, and None where it cannot be computed."""


def forget_images(
    repository: Repository,
    plans: Mapping[str, MakePlan],
    *,
    is_dry_run: bool = False,
    progress: Progress | None = None,
) -> list[Forgotten]:
    """Forget in one image after another, or return what that would do. An error in one image does not stop the others."""
    results = []
    for image, make_plan in plans.items():
        try:
            if is_dry_run:
                plan = plan_forget(repository, image, make_plan, progress=progress)
            else:
                plan = forget(repository, image, make_plan, progress=progress)
            results.append(Forgotten(image, plan))
        except (SnapshotError, RepositoryLocked, LockLost) as error:
            results.append(Forgotten(image, None, error=error))
    return _add_reclaimable(repository, results, progress or NoProgress()) if is_dry_run else results


def _add_reclaimable(repository: Repository, results: list[Forgotten], progress: Progress) -> list[Forgotten]:
    try:
        groups = find_reclaimable(repository, [each.plan for each in results if each.plan])
    except (SnapshotError, IntegrityError, ObjectNotFound) as error:
        progress.warn(f"what would be freed is not known: {error}")
        return results
    return [
        replace(each, reclaimable=tuple(group for group in groups if group.refs[0].image == each.image))
        if each.plan
        else each
        for each in results
    ]


def plan_forget(
    repository: Repository, image: str, make_plan: MakePlan, *, progress: Progress | None = None
) -> ForgetPlan:
    """Return what forgetting would do; raises what the plan does."""
    snapshots = list(load_snapshots(repository, image))
    plan = make_plan(snapshots)
    for each in snapshots:
        if isinstance(each, DamagedSnapshot) and each.ref in plan.kept and progress is not None:
            progress.warn(f"{each.error}; {each.ref.label} stays until it is repaired or forgotten by name")
    if plan.doubtful and progress is not None:
        progress.warn(_describe_doubt(plan))
    return plan


def _describe_doubt(plan: ForgetPlan) -> str:
    count, example = len(plan.doubtful), plan.doubtful[-1]
    what = f"{example.label} is" if count == 1 else f"{count} snapshots of '{plan.image}', such as {example.label}, are"
    return (
        f"{what} dated in the future, or before snapshots that were there earlier: no other is forgotten because of that. Is a "
        "host compromised, or was that a sync? 'deltaimg check --accept-state' trusts the dates"
    )


def forget(
    repository: Repository,
    image: str,
    make_plan: MakePlan,
    *,
    progress: Progress | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> ForgetPlan:
    """Plan under the image's lock, and carry the plan out.

    Raises:
        RepositoryLocked: another process works on the image. LockLost: the lock was removed; what is not forgotten yet stays.
        OnlyWrites: this is a write-only host.
    """
    progress = progress or NoProgress()
    if repository.only_writes:
        raise OnlyWrites(repository.objects.location)
    with ImageLock(repository, image, "forget", clock()) as lock:
        plan = plan_forget(repository, image, make_plan, progress=progress)
        if not plan.forgotten:
            record_changes(repository, lock, clock(), progress)  # what write-only hosts have added
            return plan
        if plan.kept and not plan.verdicts[-1].is_kept:
            progress.warn(
                f"the newest snapshot of '{image}' is forgotten: the next backup is compared with {plan.kept[-1].label} instead"
            )
        record_changes(repository, lock, clock(), progress, Changes(unsettled=plan.forgotten))
        repository.remove_snapshots(plan.forgotten, lock.check)
        _remove_remains(repository, image, plan.forgotten)
        record_changes(repository, lock, clock(), progress)
        lock.check()
        return plan


def _remove_remains(repository: Repository, image: str, refs: Sequence[SnapshotRef]) -> None:
    """Remove what belongs to snapshots whose manifests are deleted: annotations, and damaged manifests in quarantine."""
    annotations, quarantined = list_annotations(repository, image), repository.list_quarantined(image)
    remove_annotations(repository, [annotations.get((ref.image, ref.id), []) for ref in refs])
    repository.objects.delete_all([name for ref in refs for name in quarantined.get(ref, ())])
