# SPDX-License-Identifier: Apache-2.0
"""Locks: who is at work, so that two do not work on the same thing, and nothing is deleted that somebody still reads.

    locks/<image>           one at a time: backup, forget, flatten and pin of an image; prune while it rewrites maps
    locks/.maintenance      one at a time: prune, repair, parity
    locks/.reader-<token>   any number: restore, verify, cat. It keeps nobody waiting but the last step of a prune

A lock whose process is gone is no lock: `lock_holder` tells.

Always  a lock that was removed stays removed: its holder never writes it again, and `check` tells it that it has lost it.
        That is how a host that slept through its own death is kept from committing what it can no longer be sure of.
"""

from __future__ import annotations

import secrets
import threading
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from datetime import datetime
from typing import Self

import msgspec

from deltaimg.errors import (
    IntegrityError,
    LockLost,
    ObjectExists,
    ObjectNotFound,
    OutOfResources,
    RepositoryLocked,
    StoreError,
)
from deltaimg.format.lock import HEARTBEATS, LOCKS, MAINTENANCE_LOCK, READER_LOCKS, Lock, build_lock, parse_lock
from deltaimg.repo.lock_holder import PATIENCE_S, RENEW_S, FoundLock, Sleep, describe_process, remove_if_gone
from deltaimg.repo.repository import Repository
from deltaimg.threads import start_thread


class HeldLock(ABC):
    """A lock object and its heartbeat; a context manager. Use one of its kinds below."""

    def __init__(self, repository: Repository, name: str, what: str, purpose: str, now: datetime) -> None:
        """Args: what: the thing that is locked, for messages. purpose: for whoever finds the lock."""
        self.token = secrets.token_hex(8)
        self._repository, self._store = repository, repository.store
        self._name, self._what = name, what
        self._lock = describe_process(self.token, purpose, now)
        self._ended = threading.Event()
        self._heart: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self._take():
            try:
                self._heart = start_thread(self._beat, "deltaimg-heartbeat")
            except OutOfResources as error:
                self._go_on_without_heartbeat(error)
        return self

    def __exit__(self, *_: object) -> None:
        self._release()

    @property
    def holder(self) -> Lock:
        """What the lock says about this process."""
        return self._lock

    def check(self) -> None:
        """Raise LockLost unless the lock still is ours: to be asked just before something is made final."""
        try:
            found = parse_lock(self._store.get(self._name), self._name)
        except (ObjectNotFound, IntegrityError) as error:
            raise LockLost(self._what) from error
        if found.token != self.token:
            raise LockLost(self._what)

    @abstractmethod
    def _take(self) -> bool:
        """Write the lock, and tell whether it stands."""

    def _go_on_without_heartbeat(self, error: OutOfResources) -> None:
        """No thread can be started: hosts that cannot see this process would take it for dead, and remove its lock."""
        self._release()
        raise OutOfResources(error.what, f"renewing the lock of {self._what}") from error

    def _put(self) -> None:
        """Write the lock; raises ObjectExists."""
        try:
            self._store.put(self._name, [build_lock(self._lock)])
        except ObjectExists:
            raise
        except StoreError:
            self._release()  # it may have been made all the same
            raise

    def _beat(self) -> None:
        """Renew the heartbeat until the end. What cannot be written now is written the next time, or `check` will tell."""
        beat = self._lock
        while not self._ended.wait(RENEW_S):
            beat = msgspec.structs.replace(beat, renewals=beat.renewals + 1)
            with suppress(StoreError):
                self._store.replace(HEARTBEATS + self.token, [build_lock(beat)])

    def _release(self) -> None:
        """Remove our lock. A failure is no reason to fail what is done: once this process ends, the lock counts for nothing."""
        self._ended.set()
        if self._heart is not None:
            self._heart.join()
            self._heart = None
        for _ in range(2):
            with suppress(StoreError, IntegrityError):
                if parse_lock(self._store.get(self._name), self._name).token == self.token:
                    self._store.delete(self._name)
                break
        with suppress(StoreError):
            self._store.delete(HEARTBEATS + self.token)


class ExclusiveLock(HeldLock):
    """Held by one at a time."""

    def __init__(
        self,
        repository: Repository,
        name: str,
        what: str,
        purpose: str,
        now: datetime,
        *,
        patience_s: float = PATIENCE_S,
        sleep: Sleep = time.sleep,
    ) -> None:
        super().__init__(repository, name, what, purpose, now)
        self._patience_s, self._sleep = patience_s, sleep

    def _take(self) -> bool:
        for _ in range(3):
            try:
                self._put()
            except ObjectExists:
                self._clear_stale()
            else:
                return True
        raise RepositoryLocked(self._what, "somebody who comes and goes")

    def _clear_stale(self) -> None:
        """Remove the lock that stands in the way if its holder is gone; raises RepositoryLocked if not."""
        try:
            found = FoundLock(self._name, parse_lock(self._store.get(self._name), self._name))
        except ObjectNotFound:
            return
        if not remove_if_gone(self._store, [found], patience_s=self._patience_s, sleep=self._sleep):
            return
        raise RepositoryLocked(self._what, found.describe(), hint="wait until it is done; 'deltaimg unlock' tells more")


class ImageLock(ExclusiveLock):
    """Held while the snapshots of an image are added to, removed or changed."""

    def __init__(
        self, repository: Repository, image: str, purpose: str, now: datetime, *, patience_s: float = PATIENCE_S
    ) -> None:
        super().__init__(repository, LOCKS + image, f"image '{image}'", purpose, now, patience_s=patience_s)


class MaintenanceLock(ExclusiveLock):
    """Held by the one run that moves or removes what all images share."""

    def __init__(self, repository: Repository, purpose: str, now: datetime, *, patience_s: float = PATIENCE_S) -> None:
        super().__init__(repository, MAINTENANCE_LOCK, "the repository", purpose, now, patience_s=patience_s)


class ReaderLock(HeldLock):
    """Tells a prune to leave alone what this run may read. Where it cannot be written, reading goes on without it."""

    def __init__(self, repository: Repository, purpose: str, now: datetime) -> None:
        super().__init__(repository, "", "the repository", purpose, now)
        self._name = READER_LOCKS + self.token

    def _take(self) -> bool:
        try:
            self._put()
        except StoreError:
            return False
        return True

    def _go_on_without_heartbeat(self, error: OutOfResources) -> None:
        """A prune on another host may take the lock away, which a reader survives: it is told, and can run again."""
