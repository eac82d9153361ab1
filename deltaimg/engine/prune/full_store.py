# SPDX-License-Identifier: Apache-2.0
"""Prune in a full store: first delete what needs almost no room to be deleted, then repack in growing steps.

An unneeded pack can be deleted only once no index object names it, and an index object that names it is replaced by
one without it. So the index objects with the fewest kept entries come first, as many as fit into a budget, and the packs that
only they named. Objects that no index names need no room at all.
"""

from __future__ import annotations

import dataclasses
from contextlib import suppress

import numpy as np
from msgspec.structs import replace

from deltaimg.arrays import distinct
from deltaimg.engine.prune.attempt import Attempts, Outcome, look
from deltaimg.engine.prune.plan import PrunePlan, make_plan, names_chosen
from deltaimg.engine.prune.repack import IndexRewriter
from deltaimg.engine.prune.sizes import Inventory
from deltaimg.errors import StoreFull
from deltaimg.format.index import ENTRY
from deltaimg.model import KIB, MIB
from deltaimg.options.prune import PruneOptions
from deltaimg.repo.deletions import load_deletions
from deltaimg.repo.index import LoadedIndex
from deltaimg.repo.reachability import Reachable

_BUDGETS = (512 * KIB, 32 * KIB, 0)
"""Maximum bytes of index entries to store, tried in turn until one fits: half of the reserve, half of 64 KiB, none."""
_MAX_PACKS = 2048
"""Each takes 67 bytes of the list of what is to be deleted."""
_REPACK_STEPS = (256 * KIB, 2 * MIB, 16 * MIB, 128 * MIB)
_DELETE_ONLY = PruneOptions(max_unused_percent=100, max_repack_bytes=0, trim="none")


def carry_out_in_full_store(attempts: Attempts, options: PruneOptions, error: StoreFull) -> Outcome:
    """Delete what can be deleted without storing much, then repack in steps, each in the room freed by those before it.

    Args:
        error: raised by the attempt to do all at once.

    Raises:
        StoreFull: `error`, if nothing can be freed.
    """
    attempts.progress.warn("the store is full: what needs almost no room to be deleted is deleted first")
    freed = written = 0
    while (deleted := _delete_part(attempts)) > 0:
        freed += deleted
    step, has_gained = 0, False
    while True:
        limited = _limit_repacking(options, step)
        try:
            outcome = attempts.carry_out(limited)
        except StoreFull:
            freed += _delete_part(attempts)  # What was stored until there was no room is in no index yet.
            if step == 0 or not has_gained:
                break
            step, has_gained = step - 1, False
            continue
        freed, written = freed + outcome.freed_bytes, written + outcome.written_bytes
        if limited == options:
            return Outcome(outcome.plan, written, freed)
        step, has_gained = step + 1, has_gained or outcome.freed_bytes > outcome.written_bytes
    if not freed and not load_deletions(attempts.repository):
        raise error
    attempts.progress.warn("there is no room to repack the rest; run prune again once there is")
    return Outcome(
        plan_deletion(*look(attempts.repository, attempts.confirm_images, attempts.progress)), written, freed
    )


def _delete_part(attempts: Attempts) -> int:
    """Delete part of what is not needed, storing as little as possible; return how many bytes that freed."""
    reachable, inventory = look(attempts.repository, attempts.confirm_images, attempts.progress)
    plan = plan_deletion(reachable, inventory)
    for budget_bytes in _BUDGETS:
        part = take_part(plan, reachable.index, budget_bytes)
        if part.is_empty:
            return 0
        with suppress(StoreFull):
            rewriter = IndexRewriter(attempts.repository, reachable.index)
            rewriter.write(part.reindexed, part.resigned, len(inventory.indexes) - len(part.indexes))
            return attempts.delete(part) - rewriter.stored_bytes
    return 0


def _limit_repacking(options: PruneOptions, step: int) -> PruneOptions:
    """Return options that repack less, almost nothing in the first steps; after the last step the options themselves."""
    most = options.max_repack_bytes
    smaller = [each for each in _REPACK_STEPS if most is None or each < most]
    return dataclasses.replace(options, max_repack_bytes=smaller[step]) if step < len(smaller) else options


def plan_deletion(reachable: Reachable, inventory: Inventory) -> PrunePlan:
    """Return the plan of a prune that stores nothing again but index entries."""
    return make_plan(reachable, inventory, _DELETE_ONLY)


def take_part(plan: PrunePlan, index: LoadedIndex, budget_bytes: int) -> PrunePlan:
    """Return the part of a plan, made by `plan_deletion`, that stores at most `budget_bytes` of index entries."""
    chosen = _choose_indexes(plan, index, budget_bytes)
    is_going = names_chosen(index.names, chosen)
    is_named = ~is_going[index.object_of]
    packs = {index.packs[number] for number in distinct(index.entries["pack"][is_named]).tolist()}
    signatures = {index.signatures[number] for number in distinct(index.entries["signature"][is_named]).tolist()}
    return replace(
        plan,
        dead_packs=tuple(name for name in plan.dead_packs if name not in packs)[:_MAX_PACKS],
        indexes=chosen,
        signatures=tuple(name for name in plan.signatures if name not in signatures),
        reindexed=plan.reindexed[is_going[index.object_of[plan.reindexed]]],
    )


def _choose_indexes(plan: PrunePlan, index: LoadedIndex, budget_bytes: int) -> tuple[str, ...]:
    """Return index objects of a plan, those with the fewest kept entries first."""
    stays = np.bincount(index.object_of[plan.reindexed], minlength=len(index.names)) * ENTRY.itemsize
    sizes = {name: int(stays[number]) for number, name in enumerate(index.names) if name in set(plan.indexes)}
    ordered = sorted(sizes, key=lambda name: sizes[name])
    reached = np.cumsum([sizes[name] for name in ordered])
    return tuple(ordered[: int(np.searchsorted(reached, budget_bytes, side="right"))])
