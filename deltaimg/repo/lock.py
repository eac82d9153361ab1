# SPDX-License-Identifier: Apache-2.0
"""Locks: two runs do not change the same thing at a time, and nothing is deleted that another run still reads.

    locks/<image>/<claim>        one at a time: backup, forget, flatten and pin of an image
    locks/.maintenance/<claim>   one at a time: prune, repair, parity
    locks/.reader-<token>        any number: restore, verify, cat. Only the last step of a prune waits for it

A run that wants a lock puts a claim, under a name of its own, and lists the claims. It holds the lock if it finds no other: of
two that do so at once, the one that lists last finds both. If it finds others, the run whose claim is first by name waits a
moment for them to be withdrawn; all others withdraw theirs and wait for their turn. A claim whose process is dead is removed by
the next run that needs the lock: see `lock_watch`.

Always  two runs hold a lock at once only if the store leaves out of a listing what was put before the listing began.
        Neither exclusive creation nor clocks that agree are needed: a claim's time decides only who waits.
Always  a lock that was removed stays removed: its holder never writes it again, and `check` raises LockLost.
        So a host that was frozen, and considered dead meanwhile, does not commit what may be incomplete.
"""

from __future__ import annotations

import secrets
import threading
from abc import ABC, abstractmethod
from contextlib import ExitStack, suppress
from datetime import datetime
from functools import partial
from typing import Self

import msgspec

from deltaimg.errors import (
    DeltaimgError,
    IntegrityError,
    LockLost,
    ObjectExists,
    ObjectNotFound,
    OnlyWrites,
    OutOfResources,
    ReachabilityUnknown,
    RepositoryLocked,
    SnapshotError,
    StoreError,
)
from deltaimg.format.lock import (
    HEARTBEATS,
    MAINTENANCE_SCOPE,
    READER_LOCKS,
    TOKEN_DIGITS,
    Lock,
    build_lock,
    name_claim,
    name_claims,
)
from deltaimg.format.manifest import format_time
from deltaimg.repo.lock_holder import FoundLock, describe_process, held_tokens, list_locks, read_lock
from deltaimg.repo.lock_waiting import POLL_S, RENEW_S
from deltaimg.repo.lock_watch import HolderWatch, Verdict, remove_lock
from deltaimg.repo.owner import warn_of_owner
from deltaimg.repo.repository import Repository
from deltaimg.repo.roster_state import RosterState
from deltaimg.repo.store_trial import try_store
from deltaimg.store.interface import ObjectInfo
from deltaimg.store.retry import Backoff, retry
from deltaimg.threads import start_thread

_RELEASE = Backoff(tries=3, first_s=0.0)
_MAX_CLAIMS = 20
_YIELD_S = 0.5
"""How often the first of several claims looks whether the others have been withdrawn."""
_YIELDS = 6
_PERHAPS_LOST = (SnapshotError, IntegrityError, ObjectNotFound, ObjectExists, ReachabilityUnknown)
"""Errors that a run may get once others have considered it dead."""


class HeldLock(ABC):
    """A lock object and its heartbeat; a context manager. Use one of its kinds below."""

    def __init__(self, repository: Repository, what: str, purpose: str, now: datetime) -> None:
        """Args: what: the thing that is locked, for messages. purpose: shown to those who find the lock."""
        self._objects, self._waiting = repository.objects, repository.lock_waiting
        self._what, self._purpose, self._now = what, purpose, now
        self._ended = threading.Event()
        self._heart: threading.Thread | None = None
        self._has_beaten = False
        self._begin()

    def _begin(self) -> None:
        """Choose a token, and with it a name, that were never used."""
        self.token = secrets.token_hex(TOKEN_DIGITS // 2)
        self._lock = describe_process(self.token, self._purpose, self._now)
        self._name = self._choose_name()

    @abstractmethod
    def _choose_name(self) -> str:
        """Return the name in the store of this lock."""

    def __enter__(self) -> Self:
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

    def _put(self) -> None:
        held_tokens.add(self.token)
        self._objects.put_bytes(self._name, [build_lock(self._lock)])

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
        self._withdraw()

    def _withdraw(self) -> None:
        names = (self._name, HEARTBEATS + self.token) if self._has_beaten else (self._name,)
        for name in names:
            with suppress(StoreError):
                retry(partial(self._objects.delete, name), _RELEASE)
        held_tokens.discard(self.token)


class ExclusiveLock(HeldLock):
    """Held by one at a time. Waits for another holder as long as the repository's `lock_waiting` says."""

    def __init__(
        self, repository: Repository, scope: str, what: str, purpose: str, now: datetime, *, lists_all: bool = False
    ) -> None:
        """Args: scope: the image, or what else is locked. lists_all: list the whole store where claims are looked for."""
        self._repository, self._scope, self._lists_all = repository, scope, lists_all
        self.listing: list[ObjectInfo] = []
        """What the store had once the lock was held, if all was to be listed: spares its holder a listing."""
        super().__init__(repository, what, purpose, now)

    def _choose_name(self) -> str:
        return name_claim(self._scope, format_time(self._now), self.token)

    def _take(self) -> bool:
        try_store(self._repository)
        watch = HolderWatch(self._objects, self._waiting)
        waited_s = 0.0
        for _ in range(_MAX_CLAIMS):
            if self._claim():
                if (folder := self._objects.properties.folder) is not None:
                    warn_of_owner(folder, self._name)
                return True
            with ExitStack() as shown:
                waited_s = self._wait_for_others(watch, waited_s, shown)
            self._begin()
        raise RepositoryLocked(self._what, "several processes in turn")

    def _claim(self) -> bool:
        """Put a claim; return whether it is the only one. If it is not, it is withdrawn."""
        self._put()
        for _ in range(_YIELDS):
            claims = name_claims(self._scope)
            found = list(self._objects.list("" if self._lists_all else claims))
            names = [each.name for each in found if each.name.startswith(claims)]
            if names != [self._name]:
                names = [each.name for each in self._list_claims()]
            if names == [self._name]:
                self.listing = found if self._lists_all else []
                return True
            if self._name not in names[:1]:
                break
            self._waiting.sleep(_YIELD_S)
        self._withdraw()
        return False

    def _list_claims(self) -> list[FoundLock]:
        """Return all claims, the first first, without those of processes that are certainly dead, which are removed."""
        claims = list_locks(self._objects, self._scope)
        is_shared = self._objects.properties.is_shared
        for each in claims:
            if each.is_dead and not is_shared:
                remove_lock(self._objects, each)
        return [each for each in claims if is_shared or not each.is_dead]

    def _wait_for_others(self, watch: HolderWatch, waited_s: float, shown: ExitStack) -> float:
        """Wait until there is no claim of a living run; return how long this run has waited in all, in seconds.

        Args:
            waited_s: how long it has waited before. shown: shows which run it waits for.
        """
        shown_text = ""
        while True:
            looked = [(each, self._look(watch, each)) for each in self._list_claims()]
            left = [each for each, verdict in looked if verdict is not Verdict.GONE]
            if not left:
                return waited_s
            held = next((each for each, verdict in looked if verdict is Verdict.HELD), None)
            if held is not None and waited_s >= self._waiting.wait_s:
                raise RepositoryLocked(self._what, held.describe(), hint=_advise(held))
            is_undecided = held is None
            doing = f"{'watching for a sign of life of' if is_undecided else 'waiting for'} {left[0].describe()}"
            if shown_text != doing:
                shown_text = doing
                shown.close()
                shown.enter_context(self._waiting.show(doing))
            self._waiting.sleep(POLL_S)
            waited_s += POLL_S

    def _look(self, watch: HolderWatch, found: FoundLock) -> Verdict:
        """Check the signs of life of a claim's run once, and remove the claim of one that is dead."""
        if found.error is not None and not found.is_damaged:
            raise found.error  # The store fails or refuses, or a newer deltaimg holds it.
        verdict = watch.look(found)
        if verdict is Verdict.GONE:
            remove_lock(self._objects, found)
        return verdict


def _advise(found: FoundLock) -> str:
    if found.lock is None:
        return f"'deltaimg unlock {found.label} --force' removes it; do so only if no run is active"
    return "run again when it is done, or wait for it with --lock-wait; 'deltaimg unlock' lists active runs"


class ImageLock(ExclusiveLock):
    """Held while the snapshots of an image are added to, removed or changed."""

    def __init__(
        self, repository: Repository, image: str, purpose: str, now: datetime, *, lists_all: bool = False
    ) -> None:
        super().__init__(repository, image, f"image '{image}'", purpose, now, lists_all=lists_all)
        self.image = image
        self.roster_state: RosterState | None = None
        """What `rosters` found under the lock: no other run changes it while this one has the lock."""


class MaintenanceLock(ExclusiveLock):
    """Held by the one run that moves or removes what all images share."""

    def __init__(self, repository: Repository, purpose: str, now: datetime) -> None:
        """Raise OnlyWrites in a write-only host: of what others have stored it would see no use."""
        if repository.only_writes:
            raise OnlyWrites(repository.objects.location)
        super().__init__(repository, MAINTENANCE_SCOPE, "the repository", purpose, now)

    def _check_at_end(self) -> None:
        with suppress(StoreError):  # Nothing is known about the lock, and the work is complete.
            self.check()


class ReaderLock(HeldLock):
    """Makes a prune leave alone what this run may read. If it cannot be written, reading continues without it.

    What is found missing or damaged once the lock is lost may have been deleted by a prune: it is no damage.
    """

    def __init__(self, repository: Repository, purpose: str, now: datetime) -> None:
        super().__init__(repository, purpose, purpose, now)
        self._is_taken = False

    def _choose_name(self) -> str:
        return READER_LOCKS + self.token

    def check(self) -> None:
        """Raise LockLost if there was a lock, and another process has removed it: to be called before damage is reported."""
        if self._is_taken:
            super().check()

    def _take(self) -> bool:
        with suppress(StoreError):
            self._put()
            self._is_taken = True
        return self._is_taken

    def _start_heart(self) -> None:
        with suppress(
            OutOfResources
        ):  # A prune on another host may remove the lock: then this run ends, and is run again.
            super()._start_heart()
