# SPDX-License-Identifier: Apache-2.0
"""Locks: one holder at a time, none that a crash leaves behind, and none that comes back once it was removed."""

from __future__ import annotations

import msgspec
import pytest

from deltaimg.errors import LockLost, RepositoryLocked, StoreFull, StoreUnavailable
from deltaimg.format.lock import HEARTBEATS, build_lock
from deltaimg.repo import lock as lock_module
from deltaimg.repo.lock import ExclusiveLock, ImageLock, MaintenanceLock, ReaderLock
from deltaimg.repo.lock_holder import FoundLock, describe_process, list_locks, remove_if_gone, remove_lock
from deltaimg.repo.repository import Repository
from deltaimg.store.memory import MemoryStore
from tests.support.clock import START
from tests.support.faults import FaultyStore
from tests.support.repositories import make_repository

NAME = "locks/vm1"


def found(**changes: object) -> FoundLock:
    """Return a lock of this process, changed so."""
    lock = describe_process("f00d", "backup of a.raw", START)
    return FoundLock(NAME, msgspec.structs.replace(lock, **changes))


def put(repository: Repository, lock: FoundLock) -> None:
    repository.store.put(lock.name, [build_lock(lock.lock)])


def take(repository: Repository, sleep: object = None, patience_s: float = 10.0) -> ExclusiveLock:
    return ExclusiveLock(
        repository,
        NAME,
        "image 'vm1'",
        "backup of b.raw",
        START,
        patience_s=patience_s,
        sleep=sleep or (lambda _: None),  # type: ignore[arg-type]
    )


def names(repository: Repository) -> list[str]:
    return [each.name for each in repository.store.list("locks/")]


def test_a_lock_stands_while_it_is_held_and_no_longer() -> None:
    repository = make_repository()
    with ImageLock(repository, "vm1", "backup of a.raw", START) as lock:
        lock.check()
        assert names(repository) == [NAME]
        assert list_locks(repository)[0].lock.token == lock.token
    assert names(repository) == []


def test_images_and_maintenance_do_not_keep_each_other_waiting_but_themselves() -> None:
    repository = make_repository()
    with (
        ImageLock(repository, "vm1", "x", START),
        ImageLock(repository, "vm2", "x", START),
        MaintenanceLock(repository, "prune", START),
        ReaderLock(repository, "restore", START),
        ReaderLock(repository, "restore", START),
    ):
        assert len(list_locks(repository)) == 5
        with pytest.raises(RepositoryLocked, match="the repository is locked by process"):
            MaintenanceLock(repository, "repair", START).__enter__()
    assert names(repository) == []


@pytest.mark.parametrize("change", [{"pid": 2**22 + 1}, {"process_start": 1}, {"boot_id": "another boot"}])
def test_a_lock_of_a_process_of_this_machine_that_is_gone_is_no_lock(change: dict[str, object]) -> None:
    repository = make_repository()
    put(repository, found(**change))
    with take(repository):
        assert [each.lock.purpose for each in list_locks(repository)] == ["backup of b.raw"]


@pytest.mark.parametrize("change", [{"host": "other"}, {"machine": "other"}, {"namespace": "pid:[1]"}])
def test_a_lock_of_elsewhere_is_removed_once_it_was_seen_standing_still(change: dict[str, object]) -> None:
    repository = make_repository()
    put(repository, found(**change, pid=1))
    slept: list[float] = []
    with take(repository, slept.append):
        assert sum(slept) >= 10
        assert names(repository) == [NAME]


def test_a_lock_of_elsewhere_with_a_heartbeat_is_believed_at_its_first_beat() -> None:
    repository = make_repository()
    holder = found(host="other")
    put(repository, holder)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            beat = msgspec.structs.replace(holder.lock, renewals=1)
            repository.store.replace(HEARTBEATS + holder.lock.token, [build_lock(beat)])

    with (
        pytest.raises(RepositoryLocked, match=r"locked by process \d+ of \w+ on other, backup of a.raw"),
        take(repository, sleep),
    ):
        pass
    assert len(slept) == 3
    assert NAME in names(repository)


def test_a_holder_beats_while_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_module, "RENEW_S", 0.01)
    repository = make_repository()
    with ImageLock(repository, "vm1", "x", START) as lock:
        beats = set()
        while len(beats) < 3:
            beats.add(repository.store.get(HEARTBEATS + lock.token) if len(names(repository)) == 2 else None)
    assert names(repository) == []


def test_a_lock_that_was_removed_stays_removed_and_its_holder_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that slept and woke renewed its lock, and took it back from whoever had found it dead."""
    monkeypatch.setattr(lock_module, "RENEW_S", 0.01)
    repository = make_repository()
    with ImageLock(repository, "vm1", "x", START) as lock:
        remove_lock(repository.store, list_locks(repository)[0])
        while HEARTBEATS + lock.token not in names(repository):
            pass  # it beats on, not knowing
        with pytest.raises(LockLost, match=r"image 'vm1': its lock was removed .* nothing was committed"):
            lock.check()
        with take(repository) as other:
            with pytest.raises(LockLost):
                lock.check()
            other.check()
    assert names(repository) == []


def test_letting_go_of_a_lost_lock_leaves_the_new_holders_alone() -> None:
    repository = make_repository()
    first = take(repository)
    with first:
        remove_lock(repository.store, list_locks(repository)[0])
        second = take(repository)
        second.__enter__()
    second.check()
    second.__exit__()
    assert names(repository) == []


def test_a_damaged_lock_is_lost() -> None:
    repository = make_repository()
    with take(repository) as lock:
        repository.store.replace(NAME, [b"torn"])
        with pytest.raises(LockLost):
            lock.check()


def test_watching_many_locks_takes_no_longer_than_watching_one() -> None:
    repository = make_repository()
    locks = [FoundLock(f"locks/vm{number}", found(host="other", token=f"{number}").lock) for number in range(5)]
    for lock in locks:
        put(repository, lock)
    slept: list[float] = []
    assert remove_if_gone(repository.store, locks, patience_s=6.0, sleep=slept.append) == []
    assert sum(slept) == 6
    assert names(repository) == []


def test_a_reader_goes_on_without_a_lock_where_none_can_be_written() -> None:
    inner = MemoryStore()
    repository = make_repository(inner)
    for error in (StoreFull("x", "full"), StoreUnavailable("x", "gone")):
        broken = Repository(FaultyStore(inner, error, fail_at=0, is_lasting=True), repository.config)
        with ReaderLock(broken, "restore", START):
            assert names(repository) == []
