# SPDX-License-Identifier: Apache-2.0
"""Locks as other runs leave and remove them, and runs that wait for one without losing time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import msgspec

from deltaimg.format.lock import HEARTBEATS, build_lock, name_claim, name_claims
from deltaimg.format.manifest import format_time
from deltaimg.repo.lock import ExclusiveLock, ImageLock
from deltaimg.repo.lock_holder import FoundLock, describe_process, list_locks
from deltaimg.repo.lock_waiting import LockWaiting
from deltaimg.repo.repository import Repository
from deltaimg.store.interface import Store
from tests.support.clock import START

TOKEN = "0123456789abcdef"


def claim_of(scope: str, token: str = TOKEN) -> str:
    """Return the name of a claim that was made before any test began."""
    return name_claim(scope, format_time(START).replace("2026", "2025"), token)


LOCK_NAME = claim_of("vm1")
"""Of a lock that is older than those of the tests' runs."""


def list_claims(store: Store, scope: str = "vm1") -> list[str]:
    """Return the names of the claims to a lock."""
    return [found.name for found in store.list(name_claims(scope))]


def remove_claims(store: Store, scope: str = "vm1") -> None:
    """Do what others do who consider the holder of a lock dead."""
    for name in list_claims(store, scope):
        store.delete(name)


def remove_locks(store: Store) -> None:
    """Remove all locks; heartbeats stay."""
    for found in list(store.list("locks/")):
        if not found.name.startswith(HEARTBEATS):
            store.delete(found.name)


# -- taking a lock that others hold -------------------------------------------------------------------------------------


class Naps:
    """Stands in for sleep: counts the seconds, and lets others act after so many naps."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.acts: dict[int, object] = {}

    def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)
        act = self.acts.get(len(self.slept))
        if callable(act):
            act()

    @property
    def seconds(self) -> float:
        return sum(self.slept)


def show_in(told: list[str]) -> Callable[[str], AbstractContextManager[None]]:
    """Return what keeps account of for whom a run waits, and when that ended."""

    @contextmanager
    def show(text: str) -> Iterator[None]:
        told.append(text)
        try:
            yield
        finally:
            told.append("done")

    return show


def make_found_lock(name: str = LOCK_NAME, **changes: object) -> FoundLock:
    """Return a lock of this process, changed so."""
    lock = msgspec.structs.replace(describe_process(name[-16:], "backup of a.raw", START), **changes)
    return FoundLock(name, build_lock(lock), lock)


def put_lock(repository: Repository, lock: FoundLock) -> None:
    repository.objects.store.put(lock.name, [lock.data])


def take_lock(repository: Repository, naps: Naps | None = None, **waiting: float) -> ExclusiveLock:
    """Return a lock to enter, on an image of which another run may be at work."""
    told: list[str] = []
    repository.lock_waiting = LockWaiting(sleep=naps or Naps(), **{"patience_s": 10.0} | waiting, show=show_in(told))
    return ImageLock(repository, "vm1", "backup of b.raw", START)


def list_lock_names(repository: Repository) -> list[str]:
    return [each.name for each in repository.objects.store.list("locks/")]


def list_lock_labels(repository: Repository) -> list[str]:
    return [each.label for each in list_locks(repository.objects)]


def beat_for(repository: Repository, holder: FoundLock, renewals: int) -> None:
    assert holder.lock is not None
    beat = msgspec.structs.replace(holder.lock, renewals=renewals)
    repository.objects.store.replace(HEARTBEATS + holder.token, [build_lock(beat)])
