# SPDX-License-Identifier: Apache-2.0
"""One backup of an image at a time: a lock object that names its holder.

A lock whose process is gone is no lock: on the same host that is seen from the process table, with the boot and the start time
of the process, so that a reused process number deceives nobody. Locks of other hosts are believed.
"""

from __future__ import annotations

import getpass
import os
import secrets
import socket
from contextlib import suppress
from datetime import datetime

from deltaimg.errors import IntegrityError, ObjectExists, ObjectNotFound, RepositoryLocked, StoreError
from deltaimg.format.lock import LOCKS, Lock, build_lock, parse_lock
from deltaimg.format.manifest import format_time
from deltaimg.repo.repository import Repository


class ImageLock:
    """Held while an image is backed up; a context manager."""

    def __init__(self, repository: Repository, image: str, purpose: str, now: datetime) -> None:
        self._store = repository.store
        self._image = image
        self._name = f"{LOCKS}{image}"
        self._lock = Lock(
            owner=_user_name(),
            host=socket.gethostname(),
            boot_id=_read_boot_id(),
            pid=os.getpid(),
            process_start=_read_process_start(os.getpid()) or 0,
            created=format_time(now),
            purpose=purpose,
            token=secrets.token_hex(8),
        )

    def __enter__(self) -> ImageLock:
        data = build_lock(self._lock)
        for _ in range(3):
            try:
                self._store.put(self._name, [data])
            except ObjectExists:
                self._clear_stale()
            except StoreError:
                self._release()  # it may have been made all the same
                raise
            else:
                return self
        raise RepositoryLocked(f"image '{self._image}'", "somebody who comes and goes")

    def __exit__(self, *_: object) -> None:
        self._release()

    def _release(self) -> None:
        """Remove our lock. A failure is no reason to fail what is done: once this process ends, the lock counts for nothing."""
        for _ in range(2):
            with suppress(StoreError, IntegrityError):
                if parse_lock(self._store.get(self._name), self._name).token == self._lock.token:
                    self._store.delete(self._name)
                return

    def _clear_stale(self) -> None:
        """Remove the lock that stands in the way if its holder is gone; raises RepositoryLocked if not."""
        try:
            holder = parse_lock(self._store.get(self._name), self._name)
        except ObjectNotFound:
            return
        if holder.host != self._lock.host:
            raise RepositoryLocked(
                f"image '{self._image}'",
                f"{holder.owner} on {holder.host}, process {holder.pid}, since {holder.created}",
                hint=f"if that host is gone for good, remove '{self._name}' from the repository",
            )
        runs_still = holder.boot_id == self._lock.boot_id and _read_process_start(holder.pid) == holder.process_start
        if runs_still:
            owner = f"process {holder.pid} of {holder.owner}, {holder.purpose}, since {holder.created}"
            raise RepositoryLocked(f"image '{self._image}'", owner)
        self._store.delete(self._name)


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _read_boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
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
