# SPDX-License-Identifier: Apache-2.0
"""One prune: finish an earlier one, mark what is reachable, plan, store what stays, list the rest, delete it once that is safe.

Always  nothing is deleted by its age, and nothing without proof that no snapshot needs it, given twice.
Always  a prune that is interrupted anywhere costs no snapshot anything, and the next one finishes it.
See docs/decisions/0008-how-prune-deletes.md for the order of steps, and why it is safe beside running backups.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from deltaimg.arrays import distinct
from deltaimg.engine.progress import NoProgress, Progress
from deltaimg.engine.prune.deletion import Waiting, finish, list_for_deletion, list_waiting
from deltaimg.engine.prune.needs import find_needs
from deltaimg.engine.prune.options import PruneOptions
from deltaimg.engine.prune.plan import PrunePlan, TrimPlan, make_plan, settle
from deltaimg.engine.prune.repack import IndexRewriter, copy_records
from deltaimg.engine.prune.sizes import Inventory, take_inventory
from deltaimg.engine.recode import recode_records
from deltaimg.errors import DeltaimgError, LockLost, ReachabilityUnknown, StoreError
from deltaimg.format.manifest import count_microseconds
from deltaimg.format.pack import pack_name
from deltaimg.repo.annotations import remove_orphans
from deltaimg.repo.deletions import load_deletions
from deltaimg.repo.index import Index
from deltaimg.repo.leftovers import remove_all_leftovers
from deltaimg.repo.lock import MaintenanceLock
from deltaimg.repo.pack_writer import PackWriter
from deltaimg.repo.reachability import Reachable, mark
from deltaimg.repo.repository import Repository


@dataclass(frozen=True, slots=True)
class PruneResult:
    """What became of a prune. Sizes in bytes."""

    plan: PrunePlan
    freed_bytes: int
    """Deleted, what an earlier prune had listed included."""
    written_bytes: int
    waiting: tuple[Waiting, ...]
    """What is pending deletion and still there."""
    duration_s: float


@dataclass(frozen=True, slots=True)
class PruneForecast:
    """What a prune would do."""

    plan: PrunePlan
    waiting: tuple[Waiting, ...]


ConfirmImages = Callable[[Collection[str]], None]
"""Is called with the images that have snapshots, and raises where others are missing, so that nothing may be deleted."""


def accept_images(images: Collection[str]) -> None:
    """The `ConfirmImages` that misses none."""


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
        RepositoryLocked: another prune or a repair is at work. LockLost: another process considered this run dead.
        ReachabilityUnknown: something that tells what is needed cannot be read; nothing was deleted. StoreError.
    """
    options, progress = options or PruneOptions(), progress or NoProgress()
    started = time.monotonic()
    with MaintenanceLock(repository, "prune", clock()) as lock:
        confirm_images({ref.image for ref in repository.list_snapshots()})
        progress.start("finishing the prune before", None)
        freed = remove_all_leftovers(repository, clock()) + finish(repository, lock, progress)
        reachable, inventory = _look(repository, confirm_images, progress)
        plan, written = make_plan(reachable, inventory, options), 0
        if not plan.is_empty:
            plan, written = _replace(repository, lock, plan, reachable, inventory, options, progress, clock)
            # Numbers for every record, which are found again: twice they would be what a prune takes of memory.
            del reachable
            progress.start("deleting", None)
            list_for_deletion(repository, lock, plan, clock())
            freed += finish(repository, lock, progress)
        freed += remove_orphans(repository, lock.check)
        waiting = tuple(list_waiting(repository))
    return PruneResult(plan, freed, written, waiting, time.monotonic() - started)


def plan_prune(
    repository: Repository,
    options: PruneOptions | None = None,
    *,
    confirm_images: ConfirmImages = accept_images,
    progress: Progress | None = None,
) -> PruneForecast:
    """Return what a prune would do, and what is pending deletion; nothing is changed."""
    options = options or PruneOptions()
    reachable, inventory = _look(repository, confirm_images, progress or NoProgress())
    plan = make_plan(reachable, inventory, options)
    return PruneForecast(plan, tuple(list_waiting(repository)))


def _look(repository: Repository, confirm_images: ConfirmImages, progress: Progress) -> tuple[Reachable, Inventory]:
    """List what there is, and find out what snapshots need."""
    progress.start("finding what snapshots need", None)
    # What appears after this listing belongs to somebody at work, and is none of this run's business.
    inventory = take_inventory(repository, load_deletions(repository))
    reachable = mark(repository)
    confirm_images({manifest.image for manifest in reachable.manifests})
    _check_packs(repository, reachable, inventory)
    return reachable, inventory


def _make_clock(reachable: Reachable, clock: Callable[[], datetime]) -> Callable[[], int]:
    """Return a clock for index objects: what they say must count as newer than what they replace, whatever the time is."""
    newest = max(reachable.index.created_us, default=0)
    return lambda: max(count_microseconds(clock()), newest + 1)


def _check_packs(repository: Repository, reachable: Reachable, inventory: Inventory) -> None:
    """Refuse to go on where a pack that snapshots need is missing."""
    index = reachable.index
    numbers = distinct(index.entries["pack"][reachable.is_live]).tolist()
    missing = {pack_name(index.packs[number]) for number in numbers if index.packs[number] not in inventory.packs}
    if missing:
        missing -= {found.name for found in repository.store.list("packs/")}
    if missing:
        raise ReachabilityUnknown([f"{name} is missing, and snapshots need it" for name in sorted(missing)])


def _replace(
    repository: Repository,
    lock: MaintenanceLock,
    plan: PrunePlan,
    reachable: Reachable,
    inventory: Inventory,
    options: PruneOptions,
    progress: Progress,
    clock: Callable[[], datetime],
) -> tuple[PrunePlan, int]:
    """Write what takes the place of what goes; return the plan without what could not be read, and the bytes written."""
    index = reachable.index
    damage = _Damage(index, progress)
    with PackWriter(repository, _make_clock(reachable, clock), check_lock=lock.check) as writer:
        try:
            if not plan.trim.is_empty:
                recode_records(
                    repository, index, plan.trim.entries, plan.trim.needs, writer, progress, damage.note_record
                )
            if len(plan.moved):
                copy_records(repository, index, plan.moved, writer, progress, damage.note_pack)
        except (StoreError, LockLost):
            raise
        except BaseException:
            _publish_landed(writer, progress)
            raise
        writer.finish()
    if damage.packs:
        plan = _leave_out(plan, damage, reachable, inventory, options)
    rewriter = IndexRewriter(repository, index)
    rewriter.write(plan.reindexed, plan.resigned, len(inventory.indexes) - len(plan.indexes))
    return plan, writer.stored_bytes + rewriter.stored_bytes


class _Damage:
    """What could not be read: packs that stay as they are, and records that were not stored again."""

    def __init__(self, index: Index, progress: Progress) -> None:
        self._index, self._progress = index, progress
        self.packs: set[str] = set()
        self.entries: set[int] = set()

    def note_record(self, entry: int, problem: str) -> None:
        self.entries.add(entry)
        pack = self._index.packs[int(self._index.entries["pack"][entry])]
        if pack not in self.packs:
            self.note_pack(pack, problem)

    def note_pack(self, pack: str, problem: object) -> None:
        self.packs.add(pack)
        self._progress.warn(f"{problem}; {pack_name(pack)} stays as it is")


def _leave_out(
    plan: PrunePlan, damage: _Damage, reachable: Reachable, inventory: Inventory, options: PruneOptions
) -> PrunePlan:
    """Return a plan that keeps damaged packs, and what the deltas need that could not be encoded again."""
    index, trim = reachable.index, plan.trim
    failed = np.array(sorted(damage.entries), np.int64)
    is_exempt = np.zeros(len(index), np.bool_)
    is_exempt[np.setdiff1d(trim.recoded, failed)] = True
    needs = find_needs(index, trim.needs.mapped, is_exempt)
    # What was cut to fewer slots than are needed now is kept as it was, too.
    is_done = needs.slots[trim.cut] == trim.needs.slots[trim.cut]
    cut = np.setdiff1d(trim.cut[is_done], failed)
    trim = TrimPlan(cut, np.flatnonzero(is_exempt), needs, trim.written_bytes)
    repacked = frozenset(plan.repacked_packs) - damage.packs
    return settle(reachable, inventory, options, trim, repacked, plan.unused_bytes)


def _publish_landed(writer: PackWriter, progress: Progress) -> None:
    """Make what was stored before an interruption findable for the next prune, if the store still can."""
    try:
        writer.finish()
    except DeltaimgError as error:
        progress.warn(f"what was stored so far could not be indexed: {error}")
