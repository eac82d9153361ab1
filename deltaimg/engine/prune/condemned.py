# SPDX-License-Identifier: Apache-2.0
"""The second half of a prune: what was condemned goes, once nobody can be using it and it was proven unneeded once more.

    condemn      the list is durable, then the locks that stand are added to it. A run that begins after this uses nothing of
                 what is listed, and stores nothing under a name that is
    wait         until all those locks are gone, in this prune or a later one
    prove        mark anew. What is needed after all is taken off the list, and an index object that stays is written for it
    delete       index objects first, then signatures and maps, then packs, then the list

Always  an index object that stays has all of its records, and all of their sources, in packs that stay.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import msgspec
import numpy as np
import numpy.typing as npt

from deltaimg.arrays import distinct
from deltaimg.engine.prune.plan import PrunePlan, names_chosen
from deltaimg.engine.prune.repack import IndexRewriter
from deltaimg.errors import ReachabilityUnknown
from deltaimg.format.condemned import Condemned
from deltaimg.format.manifest import format_time
from deltaimg.repo.condemned import (
    load_condemned,
    note_condemned,
    object_names,
    put_condemned,
    remove_condemned,
    replace_condemned,
)
from deltaimg.repo.lock import MaintenanceLock
from deltaimg.repo.lock_holder import PATIENCE_S, FoundLock, list_locks, remove_if_gone
from deltaimg.repo.reachability import Reachable, close_over_sources, mark
from deltaimg.repo.repository import Repository


@dataclass(frozen=True, slots=True)
class Waiting:
    """Condemned objects that still wait, their number and bytes, and the locks that they wait for."""

    objects: int
    stored_bytes: int
    locks: tuple[FoundLock, ...]


def condemn(repository: Repository, lock: MaintenanceLock, plan: PrunePlan, now: datetime) -> Condemned:
    """Put what a plan gives up on a list of its own; what replaces it must be durable. Raises LockLost."""
    condemned = Condemned(
        id=secrets.token_hex(8),
        created=format_time(now),
        packs=plan.packs,
        indexes=plan.indexes,
        signatures=plan.signatures,
        maps=plan.maps,
    )
    lock.check()
    put_condemned(repository, condemned)
    note_condemned(repository)
    return list_waits(repository, lock, condemned)


def list_waits(repository: Repository, lock: MaintenanceLock, condemned: Condemned) -> Condemned:
    """Add the locks that stand to a list that is durable and has none yet."""
    if condemned.waits_for is not None:
        return condemned
    tokens = tuple(found.lock.token for found in list_locks(repository) if found.lock.token != lock.token)
    listed = msgspec.structs.replace(condemned, waits_for=tokens)
    replace_condemned(repository, listed, lock.check)
    return listed


def find_standing(
    repository: Repository, lists: Iterable[Condemned], patience_s: float = PATIENCE_S
) -> list[FoundLock]:
    """Return the locks that `lists` wait for and that stand; those of dead processes are removed."""
    awaited = {token for each in lists for token in each.waits_for or ()}
    found = [each for each in list_locks(repository) if each.lock.token in awaited]
    return remove_if_gone(repository.store, found, patience_s=patience_s)


def finish(repository: Repository, lock: MaintenanceLock, patience_s: float = PATIENCE_S) -> int:
    """Prove and delete all that nobody can be using any more; return how many bytes that freed.

    Raises:
        LockLost: another run may be at the same work. ReachabilityUnknown: nothing more can be proven; nothing was deleted.
    """
    lists = [list_waits(repository, lock, each) for each in load_condemned(repository)]
    standing = {found.lock.token for found in find_standing(repository, lists, patience_s)}
    due = [each for each in lists if standing.isdisjoint(each.waits_for or ())]
    if not due:
        return 0
    sizes = {found.name: found.size_bytes for found in repository.store.list("")}
    due = _pardon(repository, lock, due)
    freed = 0
    for condemned in due:
        for name in object_names(condemned):
            if name in sizes:
                lock.check()
                repository.store.delete(name)
                freed += sizes.pop(name)
        lock.check()
        remove_condemned(repository, condemned)
    return freed


def list_waiting(repository: Repository, patience_s: float = 0) -> list[Waiting]:
    """Tell what is condemned and still there."""
    sizes = {found.name: found.size_bytes for found in repository.store.list("")}
    waiting = []
    for condemned in load_condemned(repository):
        names = [name for name in object_names(condemned) if name in sizes]
        locks = find_standing(repository, [condemned], patience_s)
        waiting.append(Waiting(len(names), sum(sizes[name] for name in names), tuple(locks)))
    return waiting


def _is_unneeded(repository: Repository, due: list[Condemned]) -> bool:
    """Tell whether what stays is enough by itself; then nothing that is due is needed.

    So it is next to always, and the index objects that go need not be read: with those that replace them they would take twice
    the memory.
    """
    try:
        reachable = mark(repository, without={name for each in due for name in each.indexes})
    except ReachabilityUnknown:
        return False
    index = reachable.index
    gone = {name for each in due for name in (*each.packs, *each.signatures, *each.maps)}
    return gone.isdisjoint((*index.packs, *index.signatures, *reachable.maps)) and bool((index.links.depths >= 0).all())


def _pardon(repository: Repository, lock: MaintenanceLock, due: list[Condemned]) -> list[Condemned]:
    """Take off the lists what is needed after all, by snapshots or by index objects that stay."""
    if _is_unneeded(repository, due):
        return due
    reachable = mark(repository)
    index = reachable.index
    needed = _find_needed(reachable, {name for each in due for name in each.indexes})
    gone_packs = {name for each in due for name in each.packs}
    stays = ~names_chosen(index.names, {name for each in due for name in each.indexes})[index.object_of]
    rescued = np.flatnonzero(needed & ~stays)
    is_named = needed | stays
    packs = {index.packs[number] for number in distinct(index.entries["pack"][is_named]).tolist()} & gone_packs
    signatures = {index.signatures[number] for number in distinct(index.entries["signature"][is_named]).tolist()}
    if len(rescued):
        # Its index object goes with the rest; written anew, what is needed is found as before.
        IndexRewriter(repository, index).write(rescued, np.empty(0, np.int64), 0)
    pardoned = []
    for condemned in due:
        kept = msgspec.structs.replace(
            condemned,
            packs=tuple(name for name in condemned.packs if name not in packs),
            signatures=tuple(name for name in condemned.signatures if name not in signatures),
            maps=tuple(name for name in condemned.maps if name not in reachable.maps),
        )
        if kept != condemned:
            replace_condemned(repository, kept, lock.check)
        pardoned.append(kept)
    return pardoned


def _find_needed(reachable: Reachable, gone_indexes: set[str]) -> npt.NDArray[np.bool_]:
    """Return which entries snapshots need, or sources of entries that stay in the index."""
    index = reachable.index
    stays = ~names_chosen(index.names, gone_indexes)[index.object_of]
    is_sound = index.links.depths >= 0
    needed = reachable.is_live.copy()
    needed[close_over_sources(index, np.flatnonzero(stays & is_sound))] = True
    return needed
