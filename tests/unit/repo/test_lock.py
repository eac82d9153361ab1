# SPDX-License-Identifier: Apache-2.0
"""Locks: one holder at a time, none that a crash leaves behind, and none that reappears once it was removed."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta

import msgspec
import pytest

from deltaimg.errors import (
    LockLost,
    OutOfResources,
    PermissionDenied,
    RepositoryLocked,
    StoreError,
    StoreFull,
    StoreUnavailable,
    UnsupportedFormat,
)
from deltaimg.format.lock import HEARTBEATS, build_lock
from deltaimg.repo import lock as lock_module
from deltaimg.repo.lock import ExclusiveLock, ImageLock, MaintenanceLock, ReaderLock
from deltaimg.repo.lock_holder import FoundLock, describe_process, held_tokens, list_locks
from deltaimg.repo.lock_waiting import LockWaiting
from deltaimg.repo.lock_watch import remove_lock, remove_stale_locks
from deltaimg.repo.repository import Repository
from deltaimg.store.local import LocalStore
from deltaimg.store.memory import MemoryStore
from tests.golden.forge import forge_from
from tests.support.clock import START
from tests.support.faults import FaultyStore
from tests.support.locks import TOKEN, claim_of, remove_claims
from tests.support.repositories import make_repository
from tests.support.retention import HookedStore

LATER = START + timedelta(seconds=1)
NAME = claim_of("vm1")
"""Of a lock that is older than those of the tests' runs."""


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


def found(name: str = NAME, **changes: object) -> FoundLock:
    """Return a lock of this process, changed so."""
    lock = msgspec.structs.replace(describe_process(name[-16:], "backup of a.raw", START), **changes)
    return FoundLock(name, build_lock(lock), lock)


def put(repository: Repository, lock: FoundLock) -> None:
    repository.objects.store.put(lock.name, [lock.data])


def take(repository: Repository, naps: Naps | None = None, **waiting: float) -> ExclusiveLock:
    """Return a lock to enter, on an image of which another run may be at work."""
    told: list[str] = []
    repository.lock_waiting = LockWaiting(sleep=naps or Naps(), **{"patience_s": 10.0} | waiting, show=show_in(told))
    return ImageLock(repository, "vm1", "backup of b.raw", START)


def names(repository: Repository) -> list[str]:
    return [each.name for each in repository.objects.store.list("locks/")]


@pytest.fixture
def alive() -> Iterator[None]:
    """Have a lock of `found` be one that this process holds."""
    held_tokens.add(TOKEN)
    yield
    held_tokens.discard(TOKEN)


def labels(repository: Repository) -> list[str]:
    return [each.label for each in list_locks(repository.objects)]


def beat_of(repository: Repository, holder: FoundLock, renewals: int) -> None:
    assert holder.lock is not None
    beat = msgspec.structs.replace(holder.lock, renewals=renewals)
    repository.objects.store.replace(HEARTBEATS + holder.token, [build_lock(beat)])


def test_a_lock_is_there_while_it_is_held_and_no_longer() -> None:
    repository = make_repository()
    with ImageLock(repository, "vm1", "backup of a.raw", START) as lock:
        lock.check()
        assert len(names(repository)) == 1
        (shown,) = list_locks(repository.objects)
        assert (shown.label, shown.token) == ("vm1", lock.token)
    assert names(repository) == []


def test_a_holder_is_described_with_a_time_for_people() -> None:
    shown = f"{START.astimezone():%Y-%m-%d %H:%M:%S}"
    assert found(NAME).describe().endswith(f", backup of a.raw, since {shown}")
    assert found(NAME, created="yesterday").describe().endswith("since yesterday")


def test_images_and_maintenance_do_not_keep_each_other_waiting_but_themselves() -> None:
    repository = make_repository()
    with (
        ImageLock(repository, "vm1", "x", START),
        ImageLock(repository, "vm2", "x", START),
        MaintenanceLock(repository, "prune", START),
        ReaderLock(repository, "restore", START),
        ReaderLock(repository, "restore", START),
    ):
        assert len(list_locks(repository.objects)) == 5
        with pytest.raises(RepositoryLocked, match="the repository is locked by process"):
            MaintenanceLock(repository, "repair", START).__enter__()
        assert len(list_locks(repository.objects)) == 5
    assert names(repository) == []


# -- dead and alive ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [{"pid": 2**22 + 1}, {"process_start": 1}])
def test_a_lock_whose_process_is_verified_dead_is_removed_at_once(change: dict[str, object]) -> None:
    repository, naps = make_repository(), Naps()
    put(repository, found(**change))
    with take(repository, naps):
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
    put(repository, found(**change, pid=2**22 + 1))
    with take(repository, naps):
        assert naps.seconds >= 10
        assert NAME not in names(repository)
        assert labels(repository) == ["vm1"]


def test_a_lock_of_elsewhere_with_a_heartbeat_is_held_from_its_first_beat() -> None:
    repository, naps = make_repository(), Naps()
    holder = found(host="other")
    put(repository, holder)
    naps.acts[3] = lambda: beat_of(repository, holder, 1)
    with (
        pytest.raises(RepositoryLocked, match=r"locked by process \d+ of \w+ on other, backup of a.raw"),
        take(repository, naps),
    ):
        pass
    assert len(naps.slept) == 3
    assert NAME in names(repository)


def test_the_twin_of_a_copied_machine_is_watched_where_it_may_reach_the_store() -> None:
    """Its identity is ours to the last field, and its process is in no table of this copy."""
    store = MemoryStore()
    repository, naps = make_repository(store), Naps()
    holder = found(pid=2**22 + 1)
    put(repository, holder)
    store.is_shared = True
    naps.acts[5] = lambda: beat_of(repository, holder, 1)
    with pytest.raises(RepositoryLocked), take(repository, naps, patience_s=90):
        pass
    with take(repository, Naps(), patience_s=90):
        assert NAME not in names(repository)
        assert labels(repository) == ["vm1"]


def test_a_lock_that_this_process_failed_to_remove_is_left_behind_not_held() -> None:
    """A program that lives on after such a failure could never lock the image again."""
    store = MemoryStore()
    repository = make_repository(store)

    class NeverDeletes(HookedStore):
        def around(self, call: str):  # type: ignore[no-untyped-def]
            if call.startswith("delete "):
                raise StoreUnavailable("locks/vm1", "gone")
            return super().around(call)

    broken = Repository(NeverDeletes(store, "never", lambda: None), repository.config)
    with ImageLock(broken, "vm1", "x", START) as lock:
        pass
    assert labels(repository) == ["vm1"], "the release failed"
    assert lock.token not in held_tokens
    assert list_locks(repository.objects)[0].is_dead
    with take(repository) as again:
        again.check()


def test_watching_many_locks_takes_no_longer_than_watching_one() -> None:
    repository, naps = make_repository(), Naps()
    locks = [found(claim_of(f"vm{number}", f"{number:016x}"), host="other") for number in range(5)]
    for lock in locks:
        put(repository, lock)
    assert remove_stale_locks(repository.objects, locks, LockWaiting(patience_s=6.0, sleep=naps)) == []
    assert naps.seconds == 6
    assert names(repository) == []


def test_without_patience_a_lock_of_elsewhere_is_held() -> None:
    repository = make_repository()
    lock = found(host="other")
    put(repository, lock)
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
    holder = found(host="other")
    put(repository, holder)
    naps.acts[3] = lambda: beat_of(repository, holder, 1)
    naps.acts[13] = lambda: beat_of(repository, holder, 2)
    with take(repository, naps, wait_s=3600, patience_s=40) as lock:
        lock.check()
    assert naps.seconds == 13 * 2 + 40


# -- beats and lost locks ----------------------------------------------------------------------------------------------


def test_a_holder_beats_while_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_module, "RENEW_S", 0.01)
    repository = make_repository()
    with ImageLock(repository, "vm1", "x", START) as lock:
        beats = set()
        while len(beats) < 3:
            beats.add(repository.objects.store.get(HEARTBEATS + lock.token) if len(names(repository)) == 2 else None)
    assert names(repository) == []


def test_a_lock_that_was_removed_stays_removed_and_its_holder_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that slept and woke renewed its lock, and took it back from whoever had found it dead."""
    monkeypatch.setattr(lock_module, "RENEW_S", 0.01)
    repository = make_repository()
    with ImageLock(repository, "vm1", "x", START) as lock:
        remove_lock(repository.objects, list_locks(repository.objects)[0])
        with pytest.raises(LockLost, match=r"image 'vm1': another process considered this run dead"):
            lock.check()
        with take(repository) as other:
            with pytest.raises(LockLost):
                lock.check()
            other.check()
        assert lock._heart is not None
        lock._heart.join(10)
        assert not lock._heart.is_alive(), "a heart beats no longer than its lock is there"
    assert not [name for name in names(repository) if name != HEARTBEATS + lock.token]


def test_releasing_a_lost_lock_leaves_the_new_holders_alone() -> None:
    repository = make_repository()
    first = take(repository)
    with first:
        remove_lock(repository.objects, list_locks(repository.objects)[0])
        second = take(repository)
        second.__enter__()
    second.check()
    second.release()
    assert names(repository) == []


def test_a_damaged_lock_is_lost() -> None:
    repository = make_repository()
    with take(repository) as lock:
        repository.objects.store.replace(names(repository)[0], [b"torn"])
        with pytest.raises(LockLost):
            lock.check()


def test_a_reader_goes_on_without_a_lock_where_none_can_be_written() -> None:
    inner = MemoryStore()
    repository = make_repository(inner)
    for error in (StoreFull("x", "full"), StoreUnavailable("x", "gone")):
        broken = Repository(FaultyStore(inner, error, fail_at=0, is_lasting=True), repository.config)
        with ReaderLock(broken, "restore", START):
            assert names(repository) == []


def test_a_heart_that_cannot_be_started_leaves_no_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("can't start new thread")

    repository = make_repository()
    monkeypatch.setattr(threading.Thread, "start", fail)
    with pytest.raises(OutOfResources, match="renewing the lock of image 'vm1'"):
        take(repository).__enter__()
    assert names(repository) == []


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
    store.objects[NAME] = DAMAGE[how](found().data)
    (shown,) = list_locks(repository.objects)
    assert shown.is_damaged
    assert "an unknown process; the lock cannot be read" in shown.describe()
    with take(repository, naps) as lock:
        lock.check()
    assert naps.seconds == 10


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_lock_whose_holder_beats_is_held(how: str) -> None:
    store = MemoryStore()
    repository, naps = make_repository(store), Naps()
    holder = found(pid=2**22 + 1)
    store.objects[NAME] = DAMAGE[how](holder.data)
    beat_of(repository, holder, 1)
    naps.acts[2] = lambda: beat_of(repository, holder, 2)
    with pytest.raises(RepositoryLocked, match="an unknown process"):
        take(repository, naps).__enter__()
    assert NAME in store.objects


@pytest.mark.parametrize("kind", ["folder", "pipe", "dangling link"])
def test_what_stands_in_the_place_of_locks_is_an_error_of_the_store(tmp_path, kind: str) -> None:
    repository = make_repository(LocalStore(str(tmp_path / "repo")))
    path = tmp_path / "repo" / "locks" / "vm1"
    if kind == "folder":
        (tmp_path / "repo" / NAME).mkdir(parents=True)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("nowhere")
    if kind == "folder":
        assert list_locks(repository.objects) == []
        with take(repository) as lock:
            lock.check()
        return
    with pytest.raises(StoreError, match="locks/vm1"):
        take(repository).__enter__()


def test_a_damaged_lock_is_waited_for_beside_others_that_are_read() -> None:
    """Their heartbeats are no sign of life of its holder."""
    store = MemoryStore()
    repository, naps = make_repository(store), Naps()
    store.objects[NAME] = b"torn"
    other = found(claim_of("vm2", "0" * 16))
    put(repository, other)
    for number in range(1, 20):
        naps.acts[number] = lambda number=number: beat_of(repository, other, number)
    with take(repository, naps):
        assert naps.seconds == 10


def test_files_that_others_leave_in_the_folder_are_no_locks() -> None:
    store = MemoryStore()
    repository = make_repository(store)
    for name in (".nfs0001", ".DS_Store", ".reader-x", "vm1~"):
        store.objects[f"locks/{name}"] = b"x"
    assert list_locks(repository.objects) == []


# -- two at once -------------------------------------------------------------------------------------------------------


def test_of_two_that_remove_a_stale_lock_one_gets_it_and_keeps_it() -> None:
    """The second had found the stale lock, and removed whatever had its name by then: no two locks have one name."""
    store = MemoryStore()
    repository = make_repository(store)
    put(repository, found(pid=2**22 + 1))
    met: list[object] = []

    def come_between() -> None:
        with pytest.raises(RepositoryLocked, match=r"backup of b\.raw") as caught:
            take(repository).__enter__()
        met.append(caught.value)

    slow = Repository(HookedStore(store, f"delete {NAME}", come_between), repository.config)
    with take(slow) as lock:
        lock.check()
        assert labels(repository) == ["vm1"]
    assert met
    assert names(repository) == []


@pytest.mark.parametrize("is_first", [True, False])
def test_of_two_that_claim_before_either_looks_the_first_by_name_gets_the_lock(is_first: bool, alive: None) -> None:
    store = MemoryStore()
    repository = make_repository(store)
    others = found(claim_of("vm1") if is_first else claim_of("vm1").replace("2025", "2099"))
    naps = Naps()
    # The other claim appears while this run lists, and is withdrawn while this run waits, if it does.
    naps.acts[2] = lambda: store.delete(others.name)
    hooked = Repository(HookedStore(store, "list locks/vm1/", lambda: put(repository, others)), repository.config)
    lock = take(hooked, naps)
    if is_first:
        with pytest.raises(RepositoryLocked, match=r"backup of a\.raw"):
            lock.__enter__()
        assert names(repository) == [others.name]
        assert not naps.slept
    else:
        with lock:
            lock.check()
            assert naps.seconds == 1


def test_a_holder_whose_clock_is_ahead_is_waited_for_a_moment_and_keeps_its_lock(alive: None) -> None:
    store = MemoryStore()
    repository, naps = make_repository(store), Naps()
    holder = found(claim_of("vm1").replace("2025", "2099"))
    put(repository, holder)
    with pytest.raises(RepositoryLocked, match=r"backup of a\.raw"):
        take(repository, naps).__enter__()
    assert naps.seconds == 3
    assert names(repository) == [holder.name]


def test_a_claim_that_goes_before_it_is_listed_is_made_again() -> None:
    """Whoever slept in between was considered dead, and its claim removed."""
    store = MemoryStore()
    repository = make_repository(store)
    hooked = HookedStore(store, "list locks/vm1/", lambda: remove_claims(store))
    with take(Repository(hooked, repository.config)) as lock:
        lock.check()


def test_of_many_that_lock_at_once_one_wins(tmp_path) -> None:
    store = LocalStore(str(tmp_path / "repo"))
    repository = make_repository(store)
    put(repository, found(pid=2**22 + 1))
    start, outcomes = threading.Barrier(8), []
    locks = [ImageLock(Repository(store, repository.config), "vm1", f"run {number}", START) for number in range(8)]

    def run(lock: ExclusiveLock) -> None:
        start.wait()
        try:
            lock.__enter__()
            outcomes.append(lock)
        except RepositoryLocked:
            outcomes.append(None)

    threads = [threading.Thread(target=run, args=(lock,)) for lock in locks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = (lock for lock in outcomes if lock)
    assert len(outcomes) == 8
    winner.check()
    winner.release()
    assert not list(store.list("locks/"))


@pytest.mark.parametrize("error", [StoreUnavailable(NAME, "gone"), PermissionDenied(NAME, "no")])
def test_a_lock_that_the_store_cannot_read_is_an_error_of_the_store(error: StoreError) -> None:
    store = MemoryStore()
    repository = make_repository(store)
    put(repository, found(pid=2**22 + 1))
    broken = Repository(FaultyStore(store, error, fail_at=1), repository.config)
    with pytest.raises(type(error)):
        take(broken).__enter__()
    assert not list_locks(store)[0].is_damaged


def test_a_lock_of_a_newer_version_is_not_removed() -> None:
    store = MemoryStore()
    repository, naps = make_repository(store), Naps()
    store.objects[NAME] = forge_from(found().data, version=9)
    with pytest.raises(UnsupportedFormat, match="version 9"):
        take(repository, naps).__enter__()
    assert not naps.slept
    remove_lock(store, list_locks(store)[0])
    assert not list_locks(store), "unlock --force can"
