# SPDX-License-Identifier: Apache-2.0
"""Every call to the store, and every call to the operating system below it, fails once: nothing committed is ever lost."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from deltaimg.crypto.key_slots import Key
from deltaimg.errors import DeltaimgError, StoreError, StoreFull, StoreUnavailable
from deltaimg.repo.repository import Repository
from deltaimg.store.interface import Store
from deltaimg.store.local import LocalStore
from deltaimg.store.memory import MemoryStore
from tests.support.faults import FaultyPort, FaultyStore
from tests.support.images import SyntheticImage, edit_at_random, make_mixed_image
from tests.support.repositories import KEY, assert_restores, back_up_image, make_repository, open_again, reopen
from tests.support.wrapping import WatchedStore

IMAGE_BYTES = 600_000


def two_states() -> tuple[SyntheticImage, SyntheticImage]:
    """Return an image, and the same image a day later."""
    first = make_mixed_image(IMAGE_BYTES, seed=1)
    second = first.copy()
    edit_at_random(second)
    return first, second


def check_after_failure(store: Store, taken: dict[str, bytes], image: SyntheticImage) -> None:
    """The repository opens, each committed snapshot restores, the next backup succeeds and restores."""
    repository = open_again(store)
    committed = repository.list_snapshots()
    assert {ref.id for ref in committed} >= taken.keys()
    for ref in committed:
        assert_restores(repository, repository.load_manifest(ref), taken.get(ref.id, bytes(image.content)))
    assert_restores(repository, back_up_image(repository, image), bytes(image.content))


def try_back_up(repository: Repository, image: SyntheticImage) -> DeltaimgError | None:
    """Back up and return the error that ended it, if one did; anything but a DeltaimgError fails the test."""
    try:
        back_up_image(repository, image)
    except DeltaimgError as error:
        return error
    return None


def count_store_calls(key: Key | None = None) -> int:
    _, second = two_states()
    repository, _ = repository_with_one_backup(MemoryStore(), key)
    counting = WatchedStore(repository.objects.store)
    back_up_image(reopen(repository, counting), second)
    return len(counting.calls)


def repository_with_one_backup(store: Store, key: Key | None = None) -> tuple[Repository, dict[str, bytes]]:
    first, _ = two_states()
    repository = make_repository(store, key)
    manifest = back_up_image(repository, first)
    return repository, {manifest.id: bytes(first.content)}


SEALED = pytest.mark.parametrize("key", [None, KEY], ids=["plain", "sealed"])


def find_stride(key: Key | None, *, is_long: bool) -> int:
    """Return of how many calls one fails: all of them, in encrypted repositories only in a long run."""
    return 1 if key is None or is_long else 3


@SEALED
@pytest.mark.parametrize("after_effect", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("error", [StoreFull("x", "no space"), StoreUnavailable("x", "gone")], ids=["full", "gone"])
def test_an_incremental_survives_the_failure_of_any_store_call(
    error: StoreError, after_effect: bool, key: Key | None, seed: int, is_long: bool
) -> None:
    calls = count_store_calls(key)
    assert calls > 10
    _, second = two_states()
    stride = find_stride(key, is_long=is_long)
    for number in range(seed % stride, calls, stride):
        inner = MemoryStore()
        repository, taken = repository_with_one_backup(inner, key)
        faulty = FaultyStore(inner, error, fail_at=number, after_effect=after_effect)
        met = try_back_up(reopen(repository, faulty), second)
        assert met in (None, error)
        assert met is error or len(repository.list_snapshots()) == 2
        check_after_failure(inner, taken, second)


@SEALED
def test_a_store_that_stays_broken_costs_only_the_run(key: Key | None, seed: int, is_long: bool) -> None:
    _, second = two_states()
    error = StoreUnavailable("x", "gone")
    stride = find_stride(key, is_long=is_long)
    for number in range(seed % stride, count_store_calls(key), stride):
        inner = MemoryStore()
        repository, taken = repository_with_one_backup(inner, key)
        faulty = FaultyStore(inner, error, fail_at=number, is_lasting=True)
        met = try_back_up(reopen(repository, faulty), second)
        # From the commit on, only the lock's removal is left to fail, and that is no failure of the backup.
        assert met is error or (met is None and len(repository.list_snapshots()) == 2)
        for name in [name for name in inner.objects if name.startswith("locks/")]:
            inner.delete(name)  # it could not be removed by its owner, who lives on: the test is one process
        check_after_failure(inner, taken, second)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])
def test_an_incremental_survives_the_failure_of_any_system_call(tmp_path: Path, number: int) -> None:
    _, second = two_states()
    make: Callable[[int], Path] = lambda call: tmp_path / f"repo{call}"  # noqa: E731
    call = 0
    while True:
        folder = make(call)
        repository, taken = repository_with_one_backup(LocalStore(str(folder)))
        port = FaultyPort(number, fail_at=call)
        met = try_back_up(Repository(LocalStore(str(folder), port), repository.config), second)
        assert met is None or isinstance(met, StoreFull if number == errno.ENOSPC else StoreUnavailable)
        assert met is not None or len(repository.list_snapshots()) == 2
        if not port.has_failed:
            break
        for lock in (folder / "locks").glob("*/*"):
            lock.unlink()  # its removal may be what failed, and its owner, this process, lives on
        check_after_failure(LocalStore(str(folder)), taken, second)
        call += 1
    assert call > 40


def test_init_survives_the_failure_of_any_system_call(tmp_path: Path) -> None:
    for call in range(100):
        folder = tmp_path / f"repo{call}"
        port = FaultyPort(errno.ENOSPC, fail_at=call)
        with contextlib.suppress(StoreFull):
            make_repository(LocalStore(str(folder), port))
        if not port.has_failed:
            assert call > 5
            return
        store = LocalStore(str(folder))
        has_config = any(found.name == "config" for found in store.list(""))
        Repository.open(store) if has_config else make_repository(store)
    pytest.fail("init makes more than a hundred calls")


def test_a_full_disk_keeps_what_is_committed_and_space_made_is_used(make_tmpfs: Callable[[int], Path]) -> None:
    folder = make_tmpfs(4 << 20)
    repository = make_repository(LocalStore(str(folder / "repo")))
    first = make_mixed_image(2 << 20, seed=3)
    taken = {back_up_image(repository, first).id: bytes(first.content)}
    ballast = folder / "ballast"
    free = os.statvfs(folder).f_bavail * 4096
    second = first.copy()
    second.write_random(0, 1 << 20)
    for left in (0, 4096, 65536, 600_000):
        ballast.write_bytes(b"x" * max(0, free - left))
        with pytest.raises(StoreFull) as caught:
            back_up_image(repository, second)
        assert caught.value.exit_code == StoreFull.exit_code
        for ref in repository.list_snapshots():
            assert_restores(repository, repository.load_manifest(ref), taken[ref.id])
    ballast.unlink()
    check_after_failure(LocalStore(str(folder / "repo")), taken, second)
