# SPDX-License-Identifier: Apache-2.0
"""The second half of a prune: delete what is pending, once no run can be using it and a second mark found it unreachable.

    list         the list is durable, then the locks that are held are recorded beside it. A run that begins later refers
                 to nothing that is listed
    wait         until all those locks are gone, in this prune or a later one
    look again   mark reachable objects once more. What is needed after all is kept, by an index object that is kept
    delete       index objects first, then signatures and maps, then packs, then the list

Always  an index object that is kept has all of its records, and all of their sources, in packs that are kept.
Always  what is deleted was read back from the list just before; a list that cannot be read is moved to quarantine.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from itertools import groupby

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from msgspec.structs import replace

from deltaimg.arrays import distinct
from deltaimg.engine.progress import Progress
from deltaimg.engine.prune.plan import PrunePlan, names_chosen
from deltaimg.engine.prune.repack import IndexRewriter
from deltaimg.errors import DeltaimgError, ReachabilityUnknown, StoreError
from deltaimg.format.deletion import Deletion, DeletionLocks
from deltaimg.format.manifest import format_time
from deltaimg.format.pack import pack_name
from deltaimg.ids import EntryNumbers
from deltaimg.repo.deletions import (
    PendingDeletion,
    list_orphaned_locks,
    load_deletions,
    object_names,
    put_deletion,
    record_locks,
    remove_deletion,
)
from deltaimg.repo.lock import MaintenanceLock
from deltaimg.repo.lock_holder import FoundLock, list_locks
from deltaimg.repo.lock_waiting import LockWaiting
from deltaimg.repo.lock_watch import remove_stale_locks
from deltaimg.repo.object_kinds import MAP, SIGNATURE
from deltaimg.repo.quarantine import move_to_quarantine
from deltaimg.repo.reachability import Reachable, close_over_sources, mark
from deltaimg.repo.repository import Repository


class Waiting(Struct, frozen=True):
    """Objects pending deletion, their number and bytes, and the locks that they wait for."""

    objects: int
    stored_bytes: int
    locks: tuple[FoundLock, ...]


def list_for_deletion(repository: Repository, lock: MaintenanceLock, plan: PrunePlan, now: datetime) -> None:
    """Store a list of what a plan deletes, whose replacements must be durable. Raises LockLost.

    A run whose lock was lost while it stored the list removes it again: others may have begun to need what it names.
    """
    deletion = Deletion(
        id=secrets.token_hex(8),
        created=format_time(now),
        packs=plan.packs,
        indexes=plan.indexes,
        signatures=plan.signatures,
        maps=plan.maps,
    )
    put_deletion(repository, deletion, lock.check)
    try:
        lock.check()
    except DeltaimgError:
        remove_deletion(repository, deletion)
        raise
    _record_locks(repository, lock, PendingDeletion(deletion, None))


def find_held(repository: Repository, lists: Iterable[PendingDeletion], waiting: LockWaiting) -> list[FoundLock]:
    """Return the locks that `lists` wait for and that are held; those of dead processes are removed."""
    awaited = {token for each in lists for token in each.waits_for or ()}
    found = [each for each in list_locks(repository.objects) if each.token in awaited]
    return remove_stale_locks(repository.objects, found, waiting) if awaited else []


def finish(repository: Repository, lock: MaintenanceLock, progress: Progress) -> int:
    """Delete what is pending and can no longer be in use; return how many bytes that freed.

    Raises:
        LockLost: another run may be pruning. ReachabilityUnknown: what is needed cannot be determined; nothing was deleted.
    """
    lists = [_record_locks(repository, lock, each) for each in _load_sound(repository, lock, progress)]
    held = find_held(repository, lists, repository.lock_waiting)
    due = [each.objects for each in lists if not _is_awaited(each, held)]
    if not due:
        return 0
    sizes = {found.name: found.size_bytes for found in repository.objects.list("")}
    needed = _find_needed_names(repository, due)
    freed = 0
    for deletion in due:
        going = [name for name in object_names(deletion) if name in sizes and name not in needed]
        # Objects of one kind in any order; the kinds in the order in which they are listed.
        for _, of_kind in groupby(dict.fromkeys(going), key=lambda name: name.partition("/")[0]):
            names = list(of_kind)
            repository.objects.delete_all(names, lock.check)
            freed += sum(sizes.pop(name) for name in names)
        lock.check()
        remove_deletion(repository, deletion)
    return freed


def list_waiting(repository: Repository) -> list[Waiting]:
    """Return the objects that are pending deletion and exist."""
    without_waiting = replace(repository.lock_waiting, patience_s=0)
    sizes = {found.name: found.size_bytes for found in repository.objects.list("")}
    waiting = []
    for pending in load_deletions(repository):
        names = [name for name in object_names(pending.objects) if name in sizes]
        locks = find_held(repository, [pending], without_waiting)
        waiting.append(Waiting(len(names), sum(sizes[name] for name in names), tuple(locks)))
    return waiting


def _is_awaited(pending: PendingDeletion, held: list[FoundLock]) -> bool:
    """Return whether a list waits for one of these locks."""
    return any(each.token in (pending.waits_for or ()) for each in held)


def _load_sound(repository: Repository, lock: MaintenanceLock, progress: Progress) -> list[PendingDeletion]:
    """Return the lists that can be read; move the others to quarantine, and remove the recorded locks of deleted lists."""

    def set_aside(name: str, error: DeltaimgError) -> None:
        lock.check()
        progress.warn(f"{error}; what it listed is not deleted now")
        with suppress(StoreError):
            move_to_quarantine(repository.objects, name)

    pending = load_deletions(repository, set_aside)
    for name in list_orphaned_locks(repository):
        lock.check()
        repository.objects.delete(name)
    return pending


def _record_locks(repository: Repository, lock: MaintenanceLock, pending: PendingDeletion) -> PendingDeletion:
    """Record the locks that are held for a list that is durable and has none yet."""
    if pending.waits_for is not None:
        return pending
    tokens = tuple(found.token for found in list_locks(repository.objects) if found.token != lock.token)
    locks = DeletionLocks(id=pending.id, waits_for=tokens)
    return PendingDeletion(pending.objects, record_locks(repository, locks, lock.check))


def _is_unneeded(repository: Repository, due: list[Deletion]) -> bool:
    """Return whether the index objects that are kept suffice by themselves; then nothing that is due is needed.

    This is the usual case, and then the deleted index objects need not be read: with their replacements they would take twice
    the memory.
    """
    try:
        reachable = mark(repository, without={name for each in due for name in each.indexes})
    except ReachabilityUnknown:
        return False
    index = reachable.index
    gone = {name for each in due for name in (*each.packs, *each.signatures, *each.maps)}
    return gone.isdisjoint((*index.packs, *index.signatures, *reachable.maps)) and bool((index.links.depths >= 0).all())


def _find_needed_names(repository: Repository, due: list[Deletion]) -> set[str]:
    """Return what of the lists is needed after all, by snapshots or by index objects that are kept."""
    if _is_unneeded(repository, due):
        return set()
    reachable = mark(repository)
    index = reachable.index
    gone_indexes = {name for each in due for name in each.indexes}
    needed = _find_needed(reachable, gone_indexes)
    stays = ~names_chosen(index.names, gone_indexes)[index.object_of]
    rescued = np.flatnonzero(needed & ~stays)
    if len(rescued):
        # Its index object is deleted with the rest; a new one keeps what is needed findable.
        IndexRewriter(repository, index).write(EntryNumbers(rescued), EntryNumbers(np.empty(0, np.int64)), 0)
    is_named = needed | stays
    packs = {pack_name(index.packs[number]) for number in distinct(index.entries["pack"][is_named]).tolist()}
    signatures = {
        SIGNATURE.name_of(index.signatures[number])
        for number in distinct(index.entries["signature"][is_named]).tolist()
    }
    return packs | signatures | {MAP.name_of(name) for name in reachable.maps}


def _find_needed(reachable: Reachable, gone_indexes: set[str]) -> npt.NDArray[np.bool_]:
    """Return which entries are needed, by snapshots or as sources of entries that are kept in the index."""
    index = reachable.index
    stays = ~names_chosen(index.names, gone_indexes)[index.object_of]
    is_sound = index.links.depths >= 0
    needed = reachable.is_live.copy()
    needed[close_over_sources(index, EntryNumbers(np.flatnonzero(stays & is_sound)))] = True
    return needed
