# SPDX-License-Identifier: Apache-2.0
"""What processes that died left in a store: files that never became objects.

A temporary file's name says where it was written (host, boot and PID namespace, as a digest), by which process, and when that
started. Where this process runs in the same place, the process table may show that the writer is dead. Of other
places only the locks are known: every writer holds one.

Always  no file is removed while a lock of its writer is held, or of any process of a place about which nothing is known.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from msgspec import Struct

from deltaimg.processes import is_named_dead, is_of_here
from deltaimg.repo.lock_holder import FoundLock, list_locks
from deltaimg.repo.lock_watch import remove_stale_locks
from deltaimg.repo.object_kinds import BENCHMARKS, PROBES
from deltaimg.repo.repository import Repository
from deltaimg.store.interface import Unfinished

MAX_AGE = timedelta(hours=1)
"""After so long prune removes what a process of another place left, if no lock of that place is held."""


class _Writers(Struct, frozen=True):
    """Who is known to be alive, and who to be dead, by the names that temporary files carry."""

    alive: frozenset[str]
    dead: frozenset[str]
    places: frozenset[str]
    """Of those that are alive; empty text for a lock that cannot be read, which may be of any process."""

    @classmethod
    def of(cls, held: Iterable[FoundLock], gone: Iterable[FoundLock] = ()) -> _Writers:
        alive = frozenset(each.holder for each in held)
        dead = frozenset(each.holder for each in gone) - alive
        return cls(alive, dead, frozenset(name.partition("-")[0] for name in alive))

    def has_died(self, each: Unfinished, oldest_s: float) -> bool:
        """Return whether a file is a dead writer's; `oldest_s` is when one of an unknown writer must have been written last."""
        if each.writer in self.alive:
            return False
        if each.writer in self.dead or is_named_dead(each.writer):
            return True
        is_unknown = not is_of_here(each.writer) and self.places.isdisjoint((each.writer.partition("-")[0], ""))
        return is_unknown and each.modified_s < oldest_s


def remove_leftovers(repository: Repository) -> int:
    """Remove what processes of this place that are dead were putting; return how many bytes that freed."""
    found = list(repository.objects.list_unfinished())
    if not found:
        return 0
    # Where other hosts reach the store, a copy of this machine may hold what looks like a dead process's lock.
    is_shared = repository.objects.properties.is_shared
    held = [each for each in list_locks(repository.objects) if is_shared or not each.is_dead]
    return _remove(repository, found, _Writers.of(held), oldest_s=0)


def remove_all_leftovers(repository: Repository, now: datetime) -> int:
    """Remove what dead processes of any place left; return how many bytes that freed.

    Locks of those that left something are watched for a sign of life. What belongs to no lock is deleted after `MAX_AGE`.
    """
    for folder in (BENCHMARKS, PROBES):
        for found in list(repository.objects.list(folder)):
            repository.objects.delete(found.name)
    unfinished = list(repository.objects.list_unfinished())
    if not unfinished:
        return 0
    locks, writers = list_locks(repository.objects), {each.writer for each in unfinished}
    concerned = [each for each in locks if each.holder in writers]
    others = [each for each in locks if each.holder not in writers]
    held = remove_stale_locks(repository.objects, concerned, repository.lock_waiting)
    known = _Writers.of([*others, *held], concerned)
    return _remove(repository, unfinished, known, (now - MAX_AGE).timestamp())


def _remove(repository: Repository, found: list[Unfinished], writers: _Writers, oldest_s: float) -> int:
    dead = [each for each in found if writers.has_died(each, oldest_s)]
    for each in dead:
        repository.objects.remove_unfinished(each.name)
    return sum(each.size_bytes for each in dead)
