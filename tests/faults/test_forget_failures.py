# SPDX-License-Identifier: Apache-2.0
"""Each call of a forget to the store, and each to the operating system below it, fails once: no other snapshot is lost."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from deltaimg.engine.prune.run import prune
from deltaimg.engine.restore.verify import verify
from deltaimg.engine.retention.annotate import change_tags
from deltaimg.errors import DeltaimgError, StoreError, StoreFull, StoreUnavailable
from deltaimg.repo.repository import Repository
from deltaimg.store.interface import Store
from deltaimg.store.local import LocalStore
from deltaimg.store.memory import MemoryStore
from tests.support.clock import FixedClock
from tests.support.faults import FaultyPort, FaultyStore
from tests.support.history import History, assert_snapshots_restore, forget_ids, make_history
from tests.support.repositories import back_up_image

GONE = (1, 2)


def make_tagged_history(store: Store) -> History:
    """Return four snapshots, about two of which something was said."""
    history = make_history(4, size_bytes=30_000, store=store)
    for ref in history.repository.list_snapshots()[1:3]:
        change_tags(history.repository, ref, added=["a"], clock=FixedClock())
    return history


def copy_history(history: History) -> History:
    """Return the same snapshots in a store of their own, in memory."""
    store = MemoryStore()
    inner = history.repository.objects.store
    assert isinstance(inner, MemoryStore)
    store.objects.update(inner.objects)
    return History(Repository(store, history.repository.config), history.snapshots, history.image)


def try_forget(history: History, repository: Repository) -> DeltaimgError | None:
    """Forget and return the error that ended it, if one did; anything but a DeltaimgError fails the test."""
    try:
        forget_ids(repository, [history.snapshots[place].id for place in GONE])
    except DeltaimgError as error:
        return error
    return None


def check_after_failure(store: Store, history: History, seen: set[tuple[object, bool]], *, is_done: bool) -> None:
    """Nothing that was not to be forgotten is lost; the next forget finishes, the next backup restores.

    A state that was `seen` is not looked at again: many calls fail before or after all that a forget changes.
    """
    repository = Repository.open(store)
    state = frozenset(
        (found.name, store.get(found.name)) for kind in ("annotations/", "snapshots/") for found in store.list(kind)
    )
    if (state, is_done) in seen:
        return
    seen.add((state, is_done))
    kept = {snapshot.id for place, snapshot in enumerate(history.snapshots) if place not in GONE}
    there = {ref.id for ref in repository.list_snapshots()}
    assert there == kept if is_done else there >= kept
    assert_snapshots_restore(repository, history.snapshots)
    forget_ids(repository, [history.snapshots[place].id for place in GONE])
    assert {ref.id for ref in repository.list_snapshots()} == kept
    prune(repository)
    assert not list(repository.objects.store.list("annotations/"))
    back_up_image(repository, history.image)
    assert not any(each.damage for each in verify(repository, repository.list_snapshots(), workers=1))


@pytest.mark.parametrize("after_effect", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("error", [StoreFull("x", "no space"), StoreUnavailable("x", "gone")], ids=["full", "gone"])
def test_a_forget_survives_the_failure_of_any_store_call(error: StoreError, after_effect: bool) -> None:
    template, number = make_tagged_history(MemoryStore()), 0
    seen: set[tuple[object, bool]] = set()
    while True:
        history = copy_history(template)
        inner = history.repository.objects.store
        faulty = FaultyStore(inner, error, fail_at=number, after_effect=after_effect)
        met = try_forget(history, Repository(faulty, history.repository.config))
        if not faulty.has_failed:
            break
        assert met in (None, error)
        check_after_failure(inner, history, seen, is_done=met is None)
        number += 1
    assert number > 15


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])
def test_a_forget_survives_the_failure_of_any_system_call(tmp_path: Path, number: int) -> None:
    template, call = make_tagged_history(LocalStore(str(tmp_path / "template"))), 0
    seen: set[tuple[object, bool]] = set()
    while True:
        folder = tmp_path / "repo"
        shutil.copytree(tmp_path / "template", folder)
        history = History(
            Repository(LocalStore(str(folder)), template.repository.config), template.snapshots, template.image
        )
        port = FaultyPort(number, fail_at=call)
        met = try_forget(history, Repository(LocalStore(str(folder), port), history.repository.config))
        if not port.has_failed:
            break
        assert met is None or isinstance(met, StoreFull if number == errno.ENOSPC else StoreUnavailable)
        for lock in (folder / "locks").glob("*/*"):
            lock.unlink()  # its removal may be what failed, and its owner, this process, lives on
        check_after_failure(LocalStore(str(folder)), history, seen, is_done=met is None)
        shutil.rmtree(folder)
        call += 1
    assert call > 30
