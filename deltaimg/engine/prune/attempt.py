# SPDX-License-Identifier: Apache-2.0
"""Carry out a plan: store what replaces deleted objects, list what is to be deleted, and delete it once that is safe."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime
from functools import partial

import numpy as np
from msgspec import Struct

from deltaimg.arrays import distinct
from deltaimg.engine.progress import Progress, stage
from deltaimg.engine.prune.deletion import finish, list_for_deletion
from deltaimg.engine.prune.needs import Mapped, find_needs
from deltaimg.engine.prune.plan import PrunePlan, TrimPlan, find_exempt, make_plan, settle
from deltaimg.engine.prune.repack import IndexRewriter
from deltaimg.engine.prune.sizes import Inventory, take_inventory
from deltaimg.engine.prune.splits import Splits, TrimRule, choose_splits
from deltaimg.engine.recode import recode_records
from deltaimg.engine.record_copies import copy_records
from deltaimg.errors import LockLost, ReachabilityUnknown, StoreError
from deltaimg.format.pack import PACKS, pack_name
from deltaimg.ids import EntryNumbers
from deltaimg.options.prune import PruneOptions
from deltaimg.repo.deletions import load_deletions
from deltaimg.repo.index import LoadedIndex
from deltaimg.repo.lock import MaintenanceLock
from deltaimg.repo.pack_writer import PackWriter
from deltaimg.repo.reachability import Reachable, mark
from deltaimg.repo.repository import Repository

ConfirmImages = Callable[[Collection[str]], None]
"""Called with the images that have snapshots; raises if others have vanished, and then nothing is deleted."""


def accept_images(images: Collection[str]) -> None:
    """The `ConfirmImages` that accepts any set of images."""


class Outcome(Struct, frozen=True):
    """The plan that was carried out, and how many bytes it stored and deleted."""

    plan: PrunePlan
    written_bytes: int = 0
    freed_bytes: int = 0


class Attempts(Struct, frozen=True):
    """What all attempts of one run share."""

    repository: Repository
    lock: MaintenanceLock
    confirm_images: ConfirmImages
    progress: Progress
    clock: Callable[[], datetime]

    def carry_out(self, options: PruneOptions) -> Outcome:
        """Plan, store what is kept, and delete the rest."""
        reachable, inventory = look(self.repository, self.confirm_images, self.progress)
        plan = make_plan(reachable, inventory, options, find_splits(self.repository, reachable, options))
        if plan.is_empty:
            return Outcome(plan)
        plan, written = _replace(
            self.repository, self.lock, plan, reachable, inventory, options, self.progress, self.clock
        )
        # `finish` marks again, with arrays for every record: both at a time would double the memory of a prune.
        del reachable
        return Outcome(plan, written, self.delete(plan))

    def delete(self, plan: PrunePlan) -> int:
        """Delete what a plan lists, whose replacements must be durable; return how many bytes were freed so far."""
        with stage(self.progress, "deleting"):
            list_for_deletion(self.repository, self.lock, plan, self.clock())
            return finish(self.repository, self.lock, self.progress)


def look(repository: Repository, confirm_images: ConfirmImages, progress: Progress) -> tuple[Reachable, Inventory]:
    """List all objects, and mark what snapshots need."""
    with stage(progress, "finding what snapshots need"):
        # Objects that appear after this listing belong to other runs, and are not considered.
        inventory = take_inventory(repository, load_deletions(repository))
        reachable = mark(repository)
        confirm_images({manifest.image for manifest in reachable.manifests})
        _check_packs(repository, reachable, inventory)
    return reachable, inventory


def find_splits(
    repository: Repository, reachable: Reachable, options: PruneOptions
) -> Callable[[Mapped], Splits] | None:
    """Return what chooses the records to split, None where a prune is not to store any again."""
    if options.trim == "none" or options.max_repack_bytes == 0:
        return None
    return partial(choose_splits, repository, reachable, options=options)


def _check_packs(repository: Repository, reachable: Reachable, inventory: Inventory) -> None:
    """Raise ReachabilityUnknown if a pack that snapshots need is missing."""
    index = reachable.index
    numbers = distinct(index.entries["pack"][reachable.is_live]).tolist()
    missing = {pack_name(index.packs[number]) for number in numbers if index.packs[number] not in inventory.packs}
    if missing:
        missing -= {found.name for found in repository.objects.list(PACKS)}
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
    """Write what replaces objects to be deleted; return the plan without what could not be read, and the bytes written."""
    index = reachable.index
    damage = _Damage(index, progress)
    written = 0
    # What a write-only host has an index of, it shall have one of afterwards.
    for host in sorted(set(index.hosts)):
        written += _store_again(repository, host, lock, plan, damage, clock)
    if damage.packs:
        plan = _leave_out(plan, damage, reachable, inventory, options)
    rewriter = IndexRewriter(repository, index)
    rewriter.write(plan.reindexed, plan.resigned, len(inventory.indexes) - len(plan.indexes))
    return plan, written + rewriter.stored_bytes


def _store_again(
    repository: Repository,
    host: bytes,
    lock: MaintenanceLock,
    plan: PrunePlan,
    damage: _Damage,
    clock: Callable[[], datetime],
) -> int:
    """Trim and copy those records that a write-only host has, or none where `host` is empty; return the bytes written."""
    repository, index, trim = repository.sealing_for(host), damage.index, plan.trim
    trimmed, moved = index.choose_of(host, trim.entries), index.choose_of(host, plan.moved)
    if not len(trimmed) and not len(moved):
        return 0
    with PackWriter(repository, index.order_after(clock), check_lock=lock.check) as writer:
        with writer.index_if_interrupted(damage.progress.warn, except_for=(StoreError, LockLost)):
            if len(trimmed):
                rule = TrimRule(index, trim.needs, trim.splits, trim.find_exempt(index))
                recode_records(repository, index, trimmed, rule, writer, damage.progress, damage.note_record)
            if len(moved):
                copy_records(repository, index, moved, writer, damage.progress, damage.note_pack)
        writer.finish()
    return writer.stored_bytes


class _Damage:
    """What could not be read: packs that are kept unchanged, and records that were not stored again."""

    def __init__(self, index: LoadedIndex, progress: Progress) -> None:
        self.index, self.progress = index, progress
        self.packs: set[str] = set()
        self.entries: set[int] = set()

    def note_record(self, entry: int, problem: str) -> None:
        self.entries.add(entry)
        pack = self.index.packs[int(self.index.entries["pack"][entry])]
        if pack not in self.packs:
            self.note_pack(pack, problem)

    def note_pack(self, pack: str, problem: object) -> None:
        self.packs.add(pack)
        self.progress.warn(f"{problem}; {pack_name(pack)} is kept unchanged")


def _leave_out(
    plan: PrunePlan, damage: _Damage, reachable: Reachable, inventory: Inventory, options: PruneOptions
) -> PrunePlan:
    """Return a plan that keeps damaged packs, and the sources of deltas that could not be encoded again."""
    index, trim = reachable.index, plan.trim
    failed = np.array(sorted(damage.entries), np.int64)
    recoded, splits = EntryNumbers(np.setdiff1d(trim.recoded, failed)), trim.splits.without(damage.entries)
    is_exempt = find_exempt(index, recoded, splits.find_whole(index, trim.needs))
    needs = find_needs(index, trim.needs.mapped, is_exempt)
    # Records that were cut to fewer slots than are needed now are kept unchanged, too.
    is_done = needs.slots[trim.cut] == trim.needs.slots[trim.cut]
    cut = np.setdiff1d(trim.cut[is_done], failed)
    trim = TrimPlan(EntryNumbers(cut), recoded, splits, needs, trim.written_bytes)
    repacked = frozenset(plan.repacked_packs) - damage.packs
    return settle(reachable, inventory, options, trim, repacked, plan.unused_bytes)
