# SPDX-License-Identifier: Apache-2.0
"""The processes behind locks: who holds one, whether they still run, and what to do about those that do not.

On the same machine the process table tells, with the boot and the start time of the process, so that a reused process number
deceives nobody. A lock of another machine must show a heartbeat: it is removed when whoever wants it has itself watched it
stand still for `PATIENCE_S`. Clocks are never compared.
"""

from __future__ import annotations

import getpass
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import cache

import msgspec

from deltaimg.errors import IntegrityError, ObjectNotFound
from deltaimg.format.lock import HEARTBEATS, LOCKS, Lock, parse_lock
from deltaimg.format.manifest import format_time
from deltaimg.repo.repository import Repository
from deltaimg.store.interface import Store

RENEW_S = 20.0
PATIENCE_S = 90.0
"""Four heartbeats and some: a store may be slow, a host busy."""
_POLL_S = 2.0

Sleep = Callable[[float], None]


class FoundLock(msgspec.Struct, frozen=True):
    """A lock as it stands in the repository."""

    name: str
    lock: Lock

    @property
    def label(self) -> str:
        """The lock's name for people: that of the image, where it is one's."""
        return self.name.removeprefix(LOCKS)

    @property
    def is_local(self) -> bool:
        """Whether the process table of this machine can tell about its holder."""
        here = _describe_here()
        return (self.lock.host, self.lock.machine, self.lock.namespace) == (here.host, here.machine, here.namespace)

    @property
    def is_gone(self) -> bool:
        """Whether the holder is known to be dead; never true for one of another machine."""
        if not self.is_local:
            return False
        is_this_boot = self.lock.boot_id == _describe_here().boot_id
        return not (is_this_boot and _read_process_start(self.lock.pid) == self.lock.process_start)

    def describe(self) -> str:
        """Return who holds it, in a line."""
        where = "" if self.is_local else f" on {self.lock.host}"
        return f"process {self.lock.pid} of {self.lock.owner}{where}, {self.lock.purpose}, since {self.lock.created}"


def list_locks(repository: Repository) -> list[FoundLock]:
    """Return all locks, heartbeats left out; one that is damaged or goes meanwhile is no lock."""
    locks = []
    for found in repository.store.list(LOCKS):
        if not found.name.startswith(HEARTBEATS):
            with suppress(ObjectNotFound, IntegrityError):
                locks.append(FoundLock(found.name, parse_lock(repository.store.get(found.name), found.name)))
    return locks


def remove_if_gone(
    store: Store, locks: list[FoundLock], *, patience_s: float = PATIENCE_S, sleep: Sleep = time.sleep
) -> list[FoundLock]:
    """Remove those of `locks` whose holders are gone, and return those that stand.

    Locks of other machines are watched, all at once: until the first heartbeat of each, or for `patience_s`.
    """
    standing = []
    watched: dict[FoundLock, bytes | None] = {}
    for each in locks:
        if each.is_gone:
            remove_lock(store, each)
        elif each.is_local or patience_s <= 0:
            standing.append(each)
        else:
            watched[each] = _read_heartbeat(store, each)
    waited_s = 0.0
    while watched and waited_s < patience_s:
        sleep(_POLL_S)
        waited_s += _POLL_S
        for each, before in list(watched.items()):
            if not _stands(store, each):
                del watched[each]
            elif _read_heartbeat(store, each) != before:
                del watched[each]
                standing.append(each)
    for each in watched:
        remove_lock(store, each)
    return standing


def remove_lock(store: Store, found: FoundLock) -> None:
    """Remove a lock, and its heartbeat; its holder will notice before it commits."""
    if _stands(store, found):
        store.delete(found.name)
    store.delete(HEARTBEATS + found.lock.token)


def describe_process(token: str, purpose: str, now: datetime) -> Lock:
    """Return a lock in the name of this process."""
    return msgspec.structs.replace(_describe_here(), token=token, purpose=purpose, created=format_time(now))


def _stands(store: Store, found: FoundLock) -> bool:
    try:
        return parse_lock(store.get(found.name), found.name).token == found.lock.token
    except (ObjectNotFound, IntegrityError):
        return False


def _read_heartbeat(store: Store, found: FoundLock) -> bytes | None:
    try:
        return store.get(HEARTBEATS + found.lock.token)
    except ObjectNotFound:
        return None


def _describe_here() -> Lock:
    return _describe_process(os.getpid())


@cache
def _describe_process(pid: int) -> Lock:
    return Lock(
        owner=_user_name(),
        host=socket.gethostname(),
        boot_id=_read_text("/proc/sys/kernel/random/boot_id"),
        pid=pid,
        process_start=_read_process_start(pid) or 0,
        created="",
        purpose="",
        token="",
        machine=_read_text("/etc/machine-id"),
        namespace=_read_namespace(),
    )


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _read_text(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""


def _read_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _read_process_start(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot, or None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    is_dead = fields[0] in (b"Z", b"X")
    return None if is_dead else int(fields[19])
