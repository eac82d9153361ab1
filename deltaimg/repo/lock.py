# SPDX-License-Identifier: Apache-2.0
"""Locks: two runs do not change the same thing at a time, and nothing is deleted that another run still reads.

    locks/<image>           one at a time: backup, forget, flatten and pin of an image
    locks/.maintenance      one at a time: prune, repair, parity
    locks/.reader-<token>   any number: restore, verify, cat. Only the last step of a prune waits for it

A lock whose process is dead is removed by the next run that needs it: see `lock_watch`.

Always  a lock that was removed stays removed: its holder never writes it again, and `check` raises LockLost.
        That is how a host that was frozen, while others considered it dead, is kept from committing what it can no longer be
        So a host that was frozen, and considered dead meanwhile, does not commit what may be incomplete.
"""

from __future__ import annotations

import secrets
import threading
from abc import ABC, abstractmethod
from contextlib import ExitStack, suppress
from datetime import datetime
from typing import Self

import msgspec

from deltaimg.errors import (
    DeltaimgError,
    IntegrityError,
    LockLost,
    NotAnObject,
    ObjectExists,
    ObjectNotFound,
    OutOfResources,
    ReachabilityUnknown,
    RepositoryLocked,
    SnapshotError,
    StoreError,
)
from deltaimg.format.lock import HEARTBEATS, LOCKS, MAINTENANCE_LOCK, READER_LOCKS, Lock, build_lock
from deltaimg.repo.lock_holder import FoundLock, describe_process, held_tokens, read_lock
from deltaimg.repo.lock_waiting import POLL_S, RENEW_S
from deltaimg.repo.lock_watch import HolderWatch, Verdict, remove_lock
from deltaimg.repo.repository import Repository
from deltaimg.store.retry import retry
from deltaimg.threads import start_thread

_RELEASE_TRIES = 3
_MAX_REMOVALS = 10
_PERHAPS_LOST = (SnapshotError, IntegrityError, ObjectNotFound, ObjectExists, ReachabilityUnknown)
"""Errors that a run may get once others have considered it dead."""


class HeldLock(ABC):
    """A lock object and its heartbeat; a context manager. Use one of its kinds below."""

    def __init__(self, repository: Repository, name: str, what: str, purpose: str, now: datetime) -> None:
        """Args: what: the thing that is locked, for messages. purpose: shown to those who find the lock."""
        self.token = secrets.token_hex(8)
        self._objects, self._waiting = repository.objects, repository.lock_waiting
        self._name, self._what = name, what
        self._lock = describe_process(self.token, purpose, now)
        self._data = build_lock(self._lock)
        self._ended = threading.Event()
        self._heart: threading.Thread | None = None
        self._has_beaten = False

    def __enter__(self) -> Self:
        held_tokens.add(self.token)
        try:
            if self._take():
                self._start_heart()
        except BaseException:
            self.release()  # A lock whose writing failed may exist nevertheless.
            raise
        return self

    def __exit__(self, kind: object = None, error: BaseException | None = None, trace: object = None) -> None:
        try:
            if isinstance(error, _PERHAPS_LOST):
                self._check_after(error)
            elif error is None:
                self._check_at_end()
        finally:
            self.release()

    def _check_at_end(self) -> None:
        """Raise LockLost if this run's results may no longer count; nothing by default."""
        return

    def _check_after(self, error: DeltaimgError) -> None:
        """Raise LockLost in the place of an error that the loss may have caused: others delete what this run relied on."""
        try:
            self.check()
        except LockLost as lost:
            raise lost from error
        except StoreError:
            return  # Nothing is known about the lock, so the error is raised.

    @property
    def holder(self) -> Lock:
        """The content of the lock: this process."""
        return self._lock

    def check(self) -> None:
        """Raise LockLost unless the lock still is ours: to be called just before something is made final, and just after."""
        if not self._is_ours():
            raise LockLost(self._what)

    @abstractmethod
    def _take(self) -> bool:
        """Write the lock; return whether it is there."""

    def _start_heart(self) -> None:
        try:
            self._heart = start_thread(self._beat, "deltaimg-heartbeat")
        except OutOfResources as error:
            # Without a heartbeat, other hosts would consider this run dead.
            raise OutOfResources(error.what, f"renewing the lock of {self._what}") from error

    def _is_ours(self) -> bool:
        found = read_lock(self._objects, self._name)
        if found is not None and isinstance(found.error, StoreError):
            raise found.error  # The store fails; nothing is known about the lock.
        return found is not None and found.lock is not None and found.token == self.token

    def _beat(self) -> None:
        """Renew the heartbeat until the end, or until the lock is lost. What cannot be written now is written the next time."""
        beat = self._lock
        while not self._ended.wait(RENEW_S):
            beat = msgspec.structs.replace(beat, renewals=beat.renewals + 1)
            with suppress(StoreError):
                if not self._is_ours():
                    return
                self._has_beaten = True  # also where this fails: what fails may have been written
                self._objects.replace_bytes(HEARTBEATS + self.token, [build_lock(beat)])

    def release(self) -> None:
        """Remove our lock. A failure is ignored: the next run finds the lock of a dead process."""
        self._ended.set()
        if self._heart is not None:
            self._heart.join()
            self._heart = None
        with suppress(StoreError):
            retry(lambda: self._objects.delete_exactly(self._name, self._data), _RELEASE_TRIES)
        if self._has_beaten:
            with suppress(StoreError):
                self._objects.delete(HEARTBEATS + self.token)
        held_tokens.discard(self.token)


class ExclusiveLock(HeldLock):
    """Held by one at a time. Waits for another holder as long as the repository's `lock_waiting` says."""

    def _take(self) -> bool:
        with ExitStack() as shown:
            return self._take_in_turn(shown)

    def _take_in_turn(self, shown: ExitStack) -> bool:
        """Write the lock once no other run holds it. Args: shown: shows which run this one waits for."""
        watch = HolderWatch(self._objects, self._waiting)
        waited_s, shown_token, removals = 0.0, "", 0
        while removals < _MAX_REMOVALS:
            with suppress(ObjectExists, NotAnObject):
                self._objects.put_bytes(self._name, [self._data])
                return True
            found = read_lock(self._objects, self._name)
            if found is not None and found.error is not None and not found.is_damaged:
                raise found.error  # The store fails or refuses, or a newer deltaimg holds it.
            verdict = watch.look(found) if found else Verdict.GONE
            if found is None or verdict is Verdict.GONE:
                removals += 1
                if found is not None:
                    remove_lock(self._objects, found)
                continue
            if verdict is Verdict.HELD and waited_s >= self._waiting.wait_s:
                raise RepositoryLocked(self._what, found.describe(), hint=_advise(found))
            if shown_token != found.token:
                shown_token = found.token
                shown.close()
                shown.enter_context(self._waiting.show(f"waiting for {found.describe()}"))
            self._waiting.sleep(POLL_S)
            waited_s += POLL_S
        raise RepositoryLocked(self._what, "several processes in turn")


def _advise(found: FoundLock) -> str:
    if found.lock is None:
        return f"'deltaimg unlock {found.label} --force' removes it; do so only if no run is active"
    return "run again when it is done, or wait for it with --lock-wait; 'deltaimg unlock' lists active runs"


class ImageLock(ExclusiveLock):
    """Held while the snapshots of an image are added to, removed or changed."""

    def __init__(self, repository: Repository, image: str, purpose: str, now: datetime) -> None:
        super().__init__(repository, LOCKS + image, f"image '{image}'", purpose, now)


class MaintenanceLock(ExclusiveLock):
    """Held by the one run that moves or removes what all images share."""

    def __init__(self, repository: Repository, purpose: str, now: datetime) -> None:
        super().__init__(repository, MAINTENANCE_LOCK, "the repository", purpose, now)

    def _check_at_end(self) -> None:
        with suppress(StoreError):  # Nothing is known about the lock, and the work is complete.
            self.check()


class ReaderLock(HeldLock):
    """Makes a prune leave alone what this run may read. If it cannot be written, reading continues without it.

    What is found missing or damaged once the lock is lost may have been deleted by a prune: it is no damage.
    """

    def __init__(self, repository: Repository, purpose: str, now: datetime) -> None:
        super().__init__(repository, "", purpose, purpose, now)
        self._name = READER_LOCKS + self.token
        self._is_taken = False

    def check(self) -> None:
        """Raise LockLost if there was a lock, and another process has removed it: to be called before damage is reported."""
        if self._is_taken:
            super().check()

    def _take(self) -> bool:
        with suppress(StoreError):
            self._objects.put_bytes(self._name, [self._data])
            self._is_taken = True
        return self._is_taken

    def _start_heart(self) -> None:
        with suppress(
            OutOfResources
        ):  # A prune on another host may remove the lock: then this run ends, and is run again.
            super()._start_heart()
