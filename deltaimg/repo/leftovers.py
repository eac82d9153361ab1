# SPDX-License-Identifier: Apache-2.0
"""What processes that died left in a store: files that never became objects.

A temporary file's name says where it was written (host, boot and PID namespace, as a digest), by which process, and when that
started. Where this process runs in the same place, it may be proven that the writer is dead. Of other places nothing is known
but their locks: whoever writes holds one.

Always  no file is removed while a lock of its writer stands, or of any process of its writer's place.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from deltaimg.processes import is_named_dead, is_of_here
from deltaimg.repo.keys import BENCHMARKS
from deltaimg.repo.lock_holder import list_locks
from deltaimg.repo.repository import Repository
from deltaimg.store.interface import Unfinished

MAX_AGE = timedelta(days=1)
"""After so long prune removes what a process of another place left, once no lock of that place stands."""


def remove_leftovers(repository: Repository) -> int:
    """Remove what processes of this place that are dead were putting; return how many bytes that freed."""
    return _remove(repository, lambda _: False)


def remove_all_leftovers(repository: Repository, now: datetime) -> int:
    """Remove that, and what processes of other places left a day ago or earlier; return how many bytes that freed."""
    oldest_s = (now - MAX_AGE).timestamp()
    for found in list(repository.store.list(BENCHMARKS)):
        repository.store.delete(found.name)
    return _remove(repository, lambda each: each.modified_s < oldest_s)


def _remove(repository: Repository, is_old: Callable[[Unfinished], bool]) -> int:
    found = list(repository.store.list_unfinished())
    if not found:
        return 0
    held = [each for each in list_locks(repository.store) if not each.is_dead]
    holders = {each.holder for each in held}
    places = {holder.partition("-")[0] for holder in holders}
    freed = 0
    for each in found:
        is_dead = is_named_dead(each.writer)
        if not is_dead and not is_of_here(each.writer):
            # A lock that cannot be read may be anybody's.
            is_dead = is_old(each) and places.isdisjoint((each.writer.partition("-")[0], ""))
        if is_dead and each.writer not in holders:
            repository.store.remove_unfinished(each.name)
            freed += each.size_bytes
    return freed
