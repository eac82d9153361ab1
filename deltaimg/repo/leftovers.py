# SPDX-License-Identifier: Apache-2.0
"""What processes that died left in a store: files that never became objects.

A temporary file's name says where it was written (host, boot and PID namespace, as a digest), by which process, and when that
started. Where this process runs in the same place it can be known that the writer is dead. Of other places nothing is known
but their locks: whoever writes holds one.

Always  no file is removed while a lock of its writer stands, or of any process of its writer's place.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec

from deltaimg.format.framing import digest_bytes
from deltaimg.format.lock import Lock
from deltaimg.repo.keys import BENCHMARKS
from deltaimg.repo.lock_holder import FoundLock, describe_process, list_locks
from deltaimg.repo.repository import Repository
from deltaimg.store.interface import Unfinished

MAX_AGE = timedelta(days=1)
"""After so long prune removes what a process of another place left, once no lock of that place stands."""
_EPOCH = datetime.fromtimestamp(0, UTC)
_WRITER = re.compile(r"(?P<place>[0-9a-f]{16})-(?P<pid>[0-9]{1,10})-(?P<start>[0-9]{1,20})")


def describe_writer() -> str:
    """Return who this process is, as names of temporary files carry it."""
    return _name_writer(_describe_here())


def remove_leftovers(repository: Repository) -> int:
    """Remove what processes of this place that are dead were putting; return how many bytes that freed."""
    return _remove(repository, lambda _: False)


def remove_all_leftovers(repository: Repository, now: datetime) -> int:
    """Remove that, and what processes of other places left a day ago or earlier; return how many bytes that freed."""
    oldest_s = (now - MAX_AGE).timestamp()
    for found in list(repository.store.list("")):
        if found.name.startswith(BENCHMARKS):
            repository.store.delete(found.name)
    return _remove(repository, lambda each: each.modified_s < oldest_s)


def _remove(repository: Repository, is_old: Callable[[Unfinished], bool]) -> int:
    found = list(repository.store.list_unfinished())
    if not found:
        return 0
    standing = [each.lock for each in list_locks(repository) if not each.is_gone]
    writers = {_name_writer(lock) for lock in standing}
    places = {_name_place(lock) for lock in standing}
    freed = 0
    for each in found:
        is_dead = _is_dead(each.writer)
        if is_dead is None:
            is_dead = is_old(each) and each.writer.partition("-")[0] not in places
        if is_dead and each.writer not in writers:
            repository.store.remove_unfinished(each.name)
            freed += each.size_bytes
    return freed


def _is_dead(writer: str) -> bool | None:
    """Tell whether a process of this place is gone; None for one of another place, or for a name that says nothing."""
    match, here = _WRITER.fullmatch(writer), _describe_here()
    if match is None or match["place"] != _name_place(here):
        return None
    process = msgspec.structs.replace(here, pid=int(match["pid"]), process_start=int(match["start"]))
    return FoundLock("", process).is_gone


def _describe_here() -> Lock:
    return describe_process("", "", _EPOCH)


def _name_writer(lock: Lock) -> str:
    return f"{_name_place(lock)}-{lock.pid}-{lock.process_start}"


def _name_place(lock: Lock) -> str:
    """Return a digest of where process numbers mean what they mean to the holder of a lock."""
    where = "\0".join((lock.host, lock.machine, lock.boot_id, lock.namespace))
    return digest_bytes(where.encode(), length=8).hex()
