# SPDX-License-Identifier: Apache-2.0
"""Locks as they are found in a repository: who holds each, and what the process table of this host says about that process.

A lock that cannot be read still has a holder: it is found, shown and watched, and blocks no more than any other lock.
"""

from __future__ import annotations

import getpass
import os
from contextlib import suppress
from datetime import datetime

from msgspec import Struct

from deltaimg.errors import DeltaimgError, IntegrityError, NotAnObject, ObjectNotFound, StoreError, UnsupportedFormat
from deltaimg.format.limits import MAX_LOCK_BYTES
from deltaimg.format.lock import HEARTBEATS, LOCKS, TOKEN_DIGITS, Lock, name_claims, parse_lock, split_claim_name
from deltaimg.format.manifest import format_time, is_time, parse_time
from deltaimg.processes import ProcessPlace, find_own_place, is_dead, name_process, read_own_start
from deltaimg.repo.objects import Objects
from deltaimg.text import as_text

held_tokens: set[str] = set()
"""Of the locks that this process holds: one of its own that it failed to remove counts as left behind."""


class FoundLock(Struct, frozen=True):
    """A lock object in the repository."""

    name: str
    data: bytes
    """Its bytes, no more than `MAX_LOCK_BYTES` and one; empty where the store cannot read them."""
    lock: Lock | None
    """None where `error` says why not."""
    error: DeltaimgError | None = None

    @property
    def label(self) -> str:
        """The lock's name for people: that of the image, where it is one's."""
        claim = split_claim_name(self.name)
        return claim[0] if claim else self.name.removeprefix(LOCKS)

    @property
    def token(self) -> str:
        """Identifies the lock among all that ever were."""
        return self.name[-TOKEN_DIGITS:]

    @property
    def is_damaged(self) -> bool:
        """Whether the holder cannot be known: its bytes are not those of a lock, or it is no object at all."""
        return isinstance(self.error, IntegrityError | NotAnObject)

    @property
    def is_local(self) -> bool:
        """Whether the process table of this host covers its holder."""
        return self.lock is not None and _place_of(self.lock).is_here

    @property
    def is_dead(self) -> bool:
        """Whether its holder is known to have ended; never true for one of another host, boot or PID namespace."""
        if self.lock is None or not self.is_local:
            return False
        if (self.lock.pid, self.lock.process_start) == (os.getpid(), read_own_start()):
            return self.token not in held_tokens
        return is_dead(self.lock.pid, self.lock.process_start)

    @property
    def holder(self) -> str:
        """What `name_process` returns of the holder, empty if it is unknown."""
        lock = self.lock
        return name_process(_place_of(lock), lock.pid, lock.process_start) if lock else ""

    def describe(self) -> str:
        """Return who holds it, in a line."""
        if self.lock is None:
            return f"an unknown process; the lock cannot be read: {self.error}"
        where = "" if self.is_local else f" on {self.lock.host}"
        if not self.is_local and _place_of(self.lock).host == find_own_place().host:
            where = " of another boot or container"
        created = self.lock.created
        since = f"{parse_time(created).astimezone():%Y-%m-%d %H:%M:%S}" if is_time(created) else created
        return f"process {self.lock.pid} of {self.lock.owner}{where}, {self.lock.purpose}, since {since}"


def read_lock(objects: Objects, name: str) -> FoundLock | None:
    """Return the lock of this name, None if there is none."""
    data = b""
    try:
        data = objects.get_range(name, 0, MAX_LOCK_BYTES + 1)
        return FoundLock(name, data, parse_lock(data, name))
    except NotAnObject as error:
        return FoundLock(name, data, None, error)
    except ObjectNotFound:
        return None
    except (IntegrityError, UnsupportedFormat, StoreError) as error:
        return FoundLock(name, data, None, error)


def list_locks(objects: Objects, scope: str = "") -> list[FoundLock]:
    """Return all locks, or the claims to the one of `scope`, the first first; damaged ones included, heartbeats left out."""
    names = [found.name for found in objects.list(name_claims(scope) if scope else LOCKS)]
    found = [read_lock(objects, name) for name in names if not name.startswith(HEARTBEATS)]
    return [each for each in found if each is not None]


def read_heartbeat(objects: Objects, token: str) -> bytes:
    """Return the bytes of a heartbeat, none if there is none or it cannot be read."""
    with suppress(StoreError, IntegrityError):
        return objects.get_range(HEARTBEATS + token, 0, MAX_LOCK_BYTES)
    return b""


def describe_process(token: str, purpose: str, now: datetime) -> Lock:
    """Return a lock in the name of this process."""
    place = find_own_place()
    return Lock(
        owner=as_text(_user_name()),
        host=place.host,
        boot_id=place.boot_id,
        pid=os.getpid(),
        process_start=read_own_start(),
        created=format_time(now),
        purpose=as_text(purpose),
        token=token,
        machine=place.machine,
        namespace=place.namespace,
    )


def _place_of(lock: Lock) -> ProcessPlace:
    return ProcessPlace(lock.host, lock.machine, lock.boot_id, lock.namespace)


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
