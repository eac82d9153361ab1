# SPDX-License-Identifier: Apache-2.0
"""Forget snapshots anywhere in a chain: no data moves, and every other snapshot stays what it is.

A survivor whose base is forgotten gets a map that is told apart from the nearest snapshot below it that is kept,
whatever number of neighbours go at once. Three steps, in this order:

1. Prove and store. Maps are overlaid up the chain, each read once. For each such survivor the new map is built, parsed again
   and laid on its new base: what comes out must be the snapshot's map of before, run for run, in records and slots. A record's
   id vouches for the digest of each slot, so that the root digest is the same without a digest being loaded. If it were
   not, nothing has changed yet. The new map is stored; nobody refers to it.
2. Replace the survivors' manifests, each by one rename. Name, identity, time, digest, tags and statistics stay.
3. Remove the manifests of the forgotten, those that stand on others of them first.

Crash   in 1: maps that nothing names, which prune removes. In 2: each survivor is told apart from a snapshot that is there: an
        old base goes only in step 3. In 3: each forgotten one that is still there has its base. So at every moment all
        snapshots that are listed can be restored, `check` finds no error, and running again finishes the work.
Locks   the image's, held from the reading of its manifests to the end, and asked again before each change.
Memory  two resolved maps (16 bytes a run each) and 56 bytes a record of the chain, whatever the number of snapshots.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import msgspec
import numpy as np

from deltaimg.arrays import Runs
from deltaimg.engine.progress import NoProgress, Progress
from deltaimg.engine.retention.freed import count_freed
from deltaimg.errors import DeltaimgError, IntegrityError, LockLost, ObjectNotFound, RepositoryLocked, SnapshotError
from deltaimg.format.manifest import Manifest
from deltaimg.format.map import MAPS, parse_map
from deltaimg.model import count_blocks
from deltaimg.repo.chain import ResolvedMap, check_cover, encode_map, lay_map
from deltaimg.repo.lineage import walk_chains
from deltaimg.repo.lock import ImageLock
from deltaimg.repo.numbering import MapNumbers
from deltaimg.repo.repository import Repository, SnapshotRef
from deltaimg.repo.retention import ForgetPlan

MakePlan = Callable[[list[Manifest]], ForgetPlan]
"""Decides over the snapshots of an image, which it gets oldest first."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What became of one image."""

    image: str
    plan: ForgetPlan | None
    """None if there is an error."""
    freed_bytes: Mapping[str, int] | None = None
    """By id, what each removal frees, together with those before it; told by a dry run only, if it can be."""
    error: DeltaimgError | None = None


def forget_images(
    repository: Repository,
    plans: Mapping[str, MakePlan],
    *,
    is_dry_run: bool = False,
    progress: Progress | None = None,
) -> list[Forgotten]:
    """Forget in one image after another, or tell what that would do. What fails in one image leaves the others alone."""
    progress = progress or NoProgress()
    results = []
    for image, make_plan in plans.items():
        try:
            if is_dry_run:
                plan = plan_forget(repository, image, make_plan)
            else:
                plan = forget(repository, image, make_plan, progress=progress)
            results.append(Forgotten(image, plan))
        except (SnapshotError, IntegrityError, RepositoryLocked, LockLost) as error:
            results.append(Forgotten(image, None, error=error))
    if not is_dry_run:
        return results
    try:
        freed = count_freed(repository, [each.plan for each in results if each.plan])
    except (SnapshotError, IntegrityError, ObjectNotFound) as error:
        progress.warn(f"what would be freed cannot be told: {error}")
        return results
    return [replace(each, freed_bytes=freed) if each.plan else each for each in results]


def plan_forget(repository: Repository, image: str, make_plan: MakePlan) -> ForgetPlan:
    """Return what forgetting would do; raises what the plan does, and IntegrityError if a manifest of the image is damaged."""
    manifests = []
    for manifest in repository.load_manifests(image):
        if isinstance(manifest, IntegrityError):
            # What it stands on cannot be told, so that nothing may be taken away below it.
            raise manifest
        manifests.append(manifest)
    return make_plan(manifests)


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
        RepositoryLocked: somebody else works on the image. LockLost: the lock was taken away; what was done so far is whole.
        SnapshotError, IntegrityError: a survivor cannot be read any more, or would not stay the same; nothing was changed.
    """
    progress = progress or NoProgress()
    with ImageLock(repository, image, "forget", clock()) as lock:
        plan = plan_forget(repository, image, make_plan)
        if not plan.forgotten:
            return plan
        if plan.kept and not plan.verdicts[-1].is_kept:
            progress.warn(
                f"the newest snapshot of '{image}' goes: the next backup is compared with {plan.kept[-1].label} instead"
            )
        for manifest in _Merge(repository, plan).run():
            repository.replace_manifest(manifest, lock.check)
        for manifest in order_removals(plan.forgotten):
            lock.check()
            repository.remove_snapshot(SnapshotRef.of(manifest))
        return plan


@dataclass(frozen=True, slots=True)
class _Path:
    """What a snapshot's map resolves to, and that of the nearest snapshot that is kept at or below it."""

    resolved: ResolvedMap
    kept: ResolvedMap | None
    """As it will be read when all is done; None if no snapshot is kept down to the newest full map."""


class _Merge:
    """Proves and stores the new maps of one image's survivors."""

    def __init__(self, repository: Repository, plan: ForgetPlan) -> None:
        self._repository = repository
        self._snapshots = {each.manifest.id: each.manifest for each in plan.verdicts}
        self._forgotten = frozenset(each.id for each in plan.forgotten)
        self._survivors = [each for each in plan.kept if each.base in self._forgotten]
        self._numbers = MapNumbers()
        self._new: list[Manifest] = []

    def run(self) -> list[Manifest]:
        """Return the manifests to replace, oldest first; all that they need is durable."""
        self._new += [self._rebase(each) for each in self._survivors if each.map_is_full]
        merged = [each for each in self._survivors if not each.map_is_full]
        walk_chains(self._repository, self._snapshots, merged, self._numbers, self._visit)
        return sorted(self._new, key=lambda each: each.time)

    def _visit(self, manifest: Manifest, own_runs: Runs, map_bytes: int, below: _Path | None) -> _Path:
        block_count = count_blocks(manifest.size_bytes, manifest.block_bytes)
        is_full = manifest.map_is_full
        resolved = lay_map(below.resolved if below else None, own_runs, block_count, map_bytes, is_full=is_full)
        check_cover(resolved, MAPS + manifest.map)
        kept = below.kept if below else None
        if manifest.id in self._forgotten:
            return _Path(resolved, kept)
        if manifest.base in self._forgotten and not is_full:
            return _Path(resolved, self._merge(manifest, resolved, kept))
        return _Path(resolved, lay_map(kept, own_runs, block_count, map_bytes, is_full=is_full))

    def _merge(self, manifest: Manifest, resolved: ResolvedMap, kept: ResolvedMap | None) -> ResolvedMap:
        """Store a survivor's new map once it is proven; return what it resolves to."""
        data, is_full = encode_map(self._numbers, resolved.runs, kept, resolved.block_count)
        new_runs = self._numbers.add_map(parse_map(data, "the new map"), "the new map")
        after = lay_map(None if is_full else kept, new_runs, resolved.block_count, len(data), is_full=is_full)
        if not np.array_equal(after.runs, resolved.runs):
            raise IntegrityError(manifest.object_name, 0, "would not be the same once its base is forgotten")
        name, _ = self._repository.put_object(MAPS, [data])
        self._new.append(msgspec.structs.replace(self._rebase(manifest), map=name, map_is_full=is_full))
        return after

    def _rebase(self, manifest: Manifest) -> Manifest:
        """Return a manifest based on the nearest snapshot below it that is kept, or on none."""
        base = self._snapshots.get(manifest.base or "")
        seen = {manifest.id}
        while base is not None and base.id in self._forgotten and base.id not in seen:
            seen.add(base.id)
            base = self._snapshots.get(base.base or "")
        is_kept = base is not None and base.id not in self._forgotten and base.id not in seen
        return msgspec.structs.replace(manifest, base=base.id if base is not None and is_kept else None)


def order_removals(forgotten: Sequence[Manifest]) -> list[Manifest]:
    """Return snapshots in such an order that none goes before those that stand on it."""
    by_id = {each.id: each for each in forgotten}
    standing = Counter(each.base for each in forgotten)
    ready = [each for each in forgotten if not standing[each.id]]
    ordered = []
    while ready:
        each = by_id.pop(ready.pop().id)
        ordered.append(each)
        standing[each.base] -= 1
        if each.base in by_id and not standing[each.base]:
            ready.append(by_id[each.base])
    return [*ordered, *by_id.values()]  # the rest name each other in a circle, so that none of them can be read
