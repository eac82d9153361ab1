# SPDX-License-Identifier: Apache-2.0
"""Which locks of others are removed: those whose process is dead, and those whose heartbeat was seen standing still."""

from __future__ import annotations

from datetime import timedelta

import pytest

from deltaimg.errors import RepositoryLocked
from deltaimg.repo.lock import ImageLock
from deltaimg.repo.lock_holder import list_locks
from deltaimg.repo.lock_waiting import LockWaiting
from deltaimg.repo.lock_watch import remove_stale_locks
from deltaimg.store.memory import MemoryStore
from tests.support.clock import START
from tests.support.locks import (
    LOCK_NAME,
    Naps,
    beat_for,
    claim_of,
    list_lock_labels,
    list_lock_names,
    make_found_lock,
    put_lock,
    show_in,
    take_lock,
)
from tests.support.repositories import make_repository

LATER = START + timedelta(seconds=1)


@pytest.mark.parametrize("change", [{"pid": 2**22 + 1}, {"process_start": 1}])
def test_a_lock_whose_process_is_verified_dead_is_removed_at_once(change: dict[str, object]) -> None:
    repository, naps = make_repository(), Naps()
    put_lock(repository, make_found_lock(**change))
    with take_lock(repository, naps):
        locks = [each.lock for each in list_locks(repository.objects)]
        assert [lock.purpose for lock in locks if lock] == ["backup of b.raw"]
    assert not naps.slept


@pytest.mark.parametrize(
    "change",
    [
        {"host": "other"},
        {"machine": "other"},
        {"namespace": "pid:[1]"},
        {"namespace": ""},
        {"boot_id": "another boot"},
        {"boot_id": ""},
    ],
)
def test_a_lock_of_another_host_boot_or_container_is_removed_once_it_was_seen_standing_still(
    change: dict[str, object],
) -> None:
    repository, naps = make_repository(), Naps()
    put_lock(repository, make_found_lock(**change, pid=2**22 + 1))
    with take_lock(repository, naps):
        assert naps.seconds >= 10
        assert LOCK_NAME not in list_lock_names(repository)
        assert list_lock_labels(repository) == ["vm1"]


def test_a_lock_of_elsewhere_with_a_heartbeat_is_held_from_its_first_beat() -> None:
    repository, naps = make_repository(), Naps()
    holder = make_found_lock(host="other")
    put_lock(repository, holder)
    naps.acts[3] = lambda: beat_for(repository, holder, 1)
    with (
        pytest.raises(RepositoryLocked, match=r"locked by process \d+ of \w+ on other, backup of a.raw"),
        take_lock(repository, naps),
    ):
        pass
    assert len(naps.slept) == 3
    assert LOCK_NAME in list_lock_names(repository)


def test_the_twin_of_a_copied_machine_is_watched_where_it_may_reach_the_store() -> None:
    """Its identity is ours to the last field, and its process is in no table of this copy."""
    store = MemoryStore()
    repository, naps = make_repository(store), Naps()
    holder = make_found_lock(pid=2**22 + 1)
    put_lock(repository, holder)
    store.is_shared = True
    naps.acts[5] = lambda: beat_for(repository, holder, 1)
    with pytest.raises(RepositoryLocked), take_lock(repository, naps, patience_s=90):
        pass
    with take_lock(repository, Naps(), patience_s=90):
        assert LOCK_NAME not in list_lock_names(repository)
        assert list_lock_labels(repository) == ["vm1"]


def test_watching_many_locks_takes_no_longer_than_watching_one() -> None:
    repository, naps = make_repository(), Naps()
    locks = [make_found_lock(claim_of(f"vm{number}", f"{number:016x}"), host="other") for number in range(5)]
    for lock in locks:
        put_lock(repository, lock)
    assert remove_stale_locks(repository.objects, locks, LockWaiting(patience_s=6.0, sleep=naps)) == []
    assert naps.seconds == 6
    assert list_lock_names(repository) == []


def test_without_patience_a_lock_of_elsewhere_is_held() -> None:
    repository = make_repository()
    lock = make_found_lock(host="other")
    put_lock(repository, lock)
    assert remove_stale_locks(repository.objects, [lock], LockWaiting(patience_s=0)) == [lock]


# -- waiting for a lock ------------------------------------------------------------------------------------------------


def test_a_run_waits_for_a_living_holder_as_long_as_it_was_asked_to() -> None:
    repository, naps, told = make_repository(), Naps(), []
    with ImageLock(repository, "vm1", "backup of a.raw", START) as first:
        repository.lock_waiting = LockWaiting(wait_s=20, sleep=naps, show=show_in(told))
        with pytest.raises(RepositoryLocked, match=r"backup of a\.raw"):
            ImageLock(repository, "vm1", "x", LATER).__enter__()
        assert naps.seconds == 20
        assert told[1:] == ["done"]
        assert "waiting for process" in told[0]
        assert "backup of a.raw" in told[0]
        naps.acts[len(naps.slept) + 4] = first.release
        with ImageLock(repository, "vm1", "x", LATER) as second:
            second.check()
    assert naps.seconds == 28


def test_a_holder_of_elsewhere_that_dies_while_it_is_waited_for_is_noticed() -> None:
    repository, naps = make_repository(), Naps()
    holder = make_found_lock(host="other")
    put_lock(repository, holder)
    naps.acts[3] = lambda: beat_for(repository, holder, 1)
    naps.acts[13] = lambda: beat_for(repository, holder, 2)
    with take_lock(repository, naps, wait_s=3600, patience_s=40) as lock:
        lock.check()
    assert naps.seconds == 13 * 2 + 40


def test_what_a_run_waits_for_is_told_as_far_as_it_is_known() -> None:
    repository, naps, told = make_repository(), Naps(), []
    holder = make_found_lock(host="other")
    put_lock(repository, holder)
    naps.acts[3] = lambda: beat_for(repository, holder, 1)
    repository.lock_waiting = LockWaiting(wait_s=3600, patience_s=40, sleep=naps, show=show_in(told))
    with ImageLock(repository, "vm1", "x", LATER):
        pass
    first, _, second, _ = told
    assert first.startswith("watching for a sign of life of process")
    assert second.startswith("waiting for process")


# -- damaged locks -----------------------------------------------------------------------------------------------------

DAMAGE = {
    "flipped": lambda data: data[:70] + bytes([data[70] ^ 1]) + data[71:],
    "truncated": lambda data: data[:40],
    "empty": lambda _: b"",
    "foreign": lambda _: b"not ours",
    "huge": lambda data: data + bytes(1 << 20),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_lock_is_that_of_an_unknown_holder_watched_and_then_removed(how: str) -> None:
    store = MemoryStore()
    repository, naps = make_repository(store), Naps()
    store.objects[LOCK_NAME] = DAMAGE[how](make_found_lock().data)
    (shown,) = list_locks(repository.objects)
    assert shown.is_damaged
    assert "an unknown process; the lock cannot be read" in shown.describe()
    with take_lock(repository, naps) as lock:
        lock.check()
    assert naps.seconds == 10


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_lock_whose_holder_beats_is_held(how: str) -> None:
    store = MemoryStore()
    repository, naps = make_repository(store), Naps()
    holder = make_found_lock(pid=2**22 + 1)
    store.objects[LOCK_NAME] = DAMAGE[how](holder.data)
    beat_for(repository, holder, 1)
    naps.acts[2] = lambda: beat_for(repository, holder, 2)
    with pytest.raises(RepositoryLocked, match="an unknown process"):
        take_lock(repository, naps).__enter__()
    assert LOCK_NAME in store.objects


def test_a_damaged_lock_is_waited_for_beside_others_that_are_read() -> None:
    """Their heartbeats are no sign of life of its holder."""
    store = MemoryStore()
    repository, naps = make_repository(store), Naps()
    store.objects[LOCK_NAME] = b"torn"
    other = make_found_lock(claim_of("vm2", "0" * 16))
    put_lock(repository, other)
    for number in range(1, 20):
        naps.acts[number] = lambda number=number: beat_for(repository, other, number)
    with take_lock(repository, naps):
        assert naps.seconds == 10
