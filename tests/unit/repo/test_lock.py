# SPDX-License-Identifier: Apache-2.0
"""Locks: one holder at a time, none that a crash leaves behind, and none that reappears once it was removed."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

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
from deltaimg.format.lock import HEARTBEATS
from deltaimg.repo import lock as lock_module
from deltaimg.repo.lock import ExclusiveLock, ImageLock, MaintenanceLock, ReaderLock
from deltaimg.repo.lock_holder import held_tokens, list_locks
from deltaimg.repo.lock_watch import remove_lock
from deltaimg.repo.repository import Repository
from deltaimg.store.local import LocalStore
from deltaimg.store.memory import MemoryStore
from tests.golden.forge import forge_from
from tests.support.clock import START
from tests.support.faults import FaultyStore
from tests.support.locks import (
    LOCK_NAME,
    TOKEN,
    Naps,
    claim_of,
    list_lock_labels,
    list_lock_names,
    make_found_lock,
    put_lock,
    remove_claims,
    take_lock,
)
from tests.support.repositories import make_repository
from tests.support.retention import HookedStore


@pytest.fixture
def alive() -> Iterator[None]:
    """Have a lock of `found` be one that this process holds."""
    held_tokens.add(TOKEN)
    yield
    held_tokens.discard(TOKEN)


def test_a_lock_is_there_while_it_is_held_and_no_longer() -> None:
    repository = make_repository()
    with ImageLock(repository, "vm1", "backup of a.raw", START) as lock:
        lock.check()
        assert len(list_lock_names(repository)) == 1
        (shown,) = list_locks(repository.objects)
        assert (shown.label, shown.token) == ("vm1", lock.token)
    assert list_lock_names(repository) == []


def test_a_holder_is_described_with_a_time_for_people() -> None:
    shown = f"{START.astimezone():%Y-%m-%d %H:%M:%S}"
    assert make_found_lock().describe().endswith(f", backup of a.raw, since {shown}")
    assert make_found_lock(created="yesterday").describe().endswith("since yesterday")


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
    assert list_lock_names(repository) == []


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
    assert list_lock_labels(repository) == ["vm1"], "the release failed"
    assert lock.token not in held_tokens
    assert list_locks(repository.objects)[0].is_dead
    with take_lock(repository) as again:
        again.check()


# -- beats and lost locks ----------------------------------------------------------------------------------------------


def test_a_holder_beats_while_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_module, "RENEW_S", 0.01)
    repository = make_repository()
    with ImageLock(repository, "vm1", "x", START) as lock:
        beats = set()
        while len(beats) < 3:
            beats.add(
                repository.objects.store.get(HEARTBEATS + lock.token) if len(list_lock_names(repository)) == 2 else None
            )
    assert list_lock_names(repository) == []


def test_a_lock_that_was_removed_stays_removed_and_its_holder_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that slept and woke renewed its lock, and took it back from whoever had found it dead."""
    monkeypatch.setattr(lock_module, "RENEW_S", 0.01)
    repository = make_repository()
    with ImageLock(repository, "vm1", "x", START) as lock:
        remove_lock(repository.objects, list_locks(repository.objects)[0])
        with pytest.raises(LockLost, match=r"image 'vm1': another process considered this run dead"):
            lock.check()
        with take_lock(repository) as other:
            with pytest.raises(LockLost):
                lock.check()
            other.check()
        assert lock._heart is not None
        lock._heart.join(10)
        assert not lock._heart.is_alive(), "a heart beats no longer than its lock is there"
    assert not [name for name in list_lock_names(repository) if name != HEARTBEATS + lock.token]


def test_releasing_a_lost_lock_leaves_the_new_holders_alone() -> None:
    repository = make_repository()
    first = take_lock(repository)
    with first:
        remove_lock(repository.objects, list_locks(repository.objects)[0])
        second = take_lock(repository)
        second.__enter__()
    second.check()
    second.release()
    assert list_lock_names(repository) == []


def test_a_damaged_lock_is_lost() -> None:
    repository = make_repository()
    with take_lock(repository) as lock:
        repository.objects.store.replace(list_lock_names(repository)[0], [b"torn"])
        with pytest.raises(LockLost):
            lock.check()


def test_a_reader_goes_on_without_a_lock_where_none_can_be_written() -> None:
    inner = MemoryStore()
    repository = make_repository(inner)
    for error in (StoreFull("x", "full"), StoreUnavailable("x", "gone")):
        broken = Repository(FaultyStore(inner, error, fail_at=0, is_lasting=True), repository.config)
        with ReaderLock(broken, "restore", START):
            assert list_lock_names(repository) == []


def test_a_heart_that_cannot_be_started_leaves_no_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("can't start new thread")

    repository = make_repository()
    monkeypatch.setattr(threading.Thread, "start", fail)
    with pytest.raises(OutOfResources, match="renewing the lock of image 'vm1'"):
        take_lock(repository).__enter__()
    assert list_lock_names(repository) == []


# -- two at once -------------------------------------------------------------------------------------------------------


def test_of_two_that_remove_a_stale_lock_one_gets_it_and_keeps_it() -> None:
    """The second had found the stale lock, and removed whatever had its name by then: no two locks have one name."""
    store = MemoryStore()
    repository = make_repository(store)
    put_lock(repository, make_found_lock(pid=2**22 + 1))
    met: list[object] = []

    def come_between() -> None:
        with pytest.raises(RepositoryLocked, match=r"backup of b\.raw") as caught:
            take_lock(repository).__enter__()
        met.append(caught.value)

    slow = Repository(HookedStore(store, f"delete {LOCK_NAME}", come_between), repository.config)
    with take_lock(slow) as lock:
        lock.check()
        assert list_lock_labels(repository) == ["vm1"]
    assert met
    assert list_lock_names(repository) == []


@pytest.mark.parametrize("is_first", [True, False])
def test_of_two_that_claim_before_either_looks_the_first_by_name_gets_the_lock(is_first: bool, alive: None) -> None:
    store = MemoryStore()
    repository = make_repository(store)
    others = make_found_lock(claim_of("vm1") if is_first else claim_of("vm1").replace("2025", "2099"))
    naps = Naps()
    # The other claim appears while this run lists, and is withdrawn while this run waits, if it does.
    naps.acts[2] = lambda: store.delete(others.name)
    hooked = Repository(HookedStore(store, "list locks/vm1/", lambda: put_lock(repository, others)), repository.config)
    lock = take_lock(hooked, naps)
    if is_first:
        with pytest.raises(RepositoryLocked, match=r"backup of a\.raw"):
            lock.__enter__()
        assert list_lock_names(repository) == [others.name]
        assert not naps.slept
    else:
        with lock:
            lock.check()
            assert naps.seconds == 1


def test_a_holder_whose_clock_is_ahead_is_waited_for_a_moment_and_keeps_its_lock(alive: None) -> None:
    store = MemoryStore()
    repository, naps = make_repository(store), Naps()
    holder = make_found_lock(claim_of("vm1").replace("2025", "2099"))
    put_lock(repository, holder)
    with pytest.raises(RepositoryLocked, match=r"backup of a\.raw"):
        take_lock(repository, naps).__enter__()
    assert naps.seconds == 3
    assert list_lock_names(repository) == [holder.name]


def test_a_claim_that_goes_before_it_is_listed_is_made_again() -> None:
    """Whoever slept in between was considered dead, and its claim removed."""
    store = MemoryStore()
    repository = make_repository(store)
    hooked = HookedStore(store, "list locks/vm1/", lambda: remove_claims(store))
    with take_lock(Repository(hooked, repository.config)) as lock:
        lock.check()


def test_of_many_that_lock_at_once_one_wins(tmp_path) -> None:
    store = LocalStore(str(tmp_path / "repo"))
    repository = make_repository(store)
    put_lock(repository, make_found_lock(pid=2**22 + 1))
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


# -- what cannot be read as a lock -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["folder", "pipe", "dangling link"])
def test_what_stands_in_the_place_of_locks_is_an_error_of_the_store(tmp_path, kind: str) -> None:
    repository = make_repository(LocalStore(str(tmp_path / "repo")))
    path = tmp_path / "repo" / "locks" / "vm1"
    if kind == "folder":
        (tmp_path / "repo" / LOCK_NAME).mkdir(parents=True)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("nowhere")
    if kind == "folder":
        assert list_locks(repository.objects) == []
        with take_lock(repository) as lock:
            lock.check()
        return
    with pytest.raises(StoreError, match="locks/vm1"):
        take_lock(repository).__enter__()


def test_files_that_others_leave_in_the_folder_are_no_locks() -> None:
    store = MemoryStore()
    repository = make_repository(store)
    for name in (".nfs0001", ".DS_Store", ".reader-x", "vm1~"):
        store.objects[f"locks/{name}"] = b"x"
    assert list_locks(repository.objects) == []


@pytest.mark.parametrize("error", [StoreUnavailable(LOCK_NAME, "gone"), PermissionDenied(LOCK_NAME, "no")])
def test_a_lock_that_the_store_cannot_read_is_an_error_of_the_store(error: StoreError) -> None:
    store = MemoryStore()
    repository = make_repository(store)
    put_lock(repository, make_found_lock(pid=2**22 + 1))
    broken = Repository(FaultyStore(store, error, fail_at=1), repository.config)
    with pytest.raises(type(error)):
        take_lock(broken).__enter__()
    assert not list_locks(store)[0].is_damaged


def test_a_lock_of_a_newer_version_is_not_removed() -> None:
    store = MemoryStore()
    repository, naps = make_repository(store), Naps()
    store.objects[LOCK_NAME] = forge_from(make_found_lock().data, version=9)
    with pytest.raises(UnsupportedFormat, match="version 9"):
        take_lock(repository, naps).__enter__()
    assert not naps.slept
    remove_lock(store, list_locks(store)[0])
    assert not list_locks(store), "unlock --force can"
