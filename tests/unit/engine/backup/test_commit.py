# SPDX-License-Identifier: Apache-2.0
"""A backup whose lock is lost commits nothing that may be missing what it needs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from deltaimg.errors import LockLost
from deltaimg.format.deletion import Deletion
from deltaimg.repo.deletions import put_deletion, remove_deletion
from deltaimg.repo.index import load_index
from deltaimg.repo.lock_holder import list_locks
from deltaimg.repo.lock_watch import remove_lock
from deltaimg.repo.repository import Repository
from deltaimg.store.interface import Confirm, Parts, always
from deltaimg.store.memory import MemoryStore
from tests.support.history import forget_ids
from tests.support.images import PAGE, edit_at_random, make_database_image, make_mixed_image
from tests.support.repositories import assert_restores, back_up_image, make_repository

ID = "00000000000000cc"


def list_for_deletion(repository: Repository, packs: tuple[str, ...]) -> Deletion:
    deletion = Deletion(id=ID, created="now", packs=packs)
    put_deletion(repository, deletion, always)
    return deletion


class HookedStore(MemoryStore):
    """Calls `before_put` before, and `after_put` after an object of `prefix` is kept."""

    def __init__(self, prefix: str) -> None:
        super().__init__()
        self.prefix = prefix
        self.before_put: Callable[[], object] = lambda: None
        self.after_put: Callable[[], None] = lambda: None

    def put(self, name: str, parts: Parts, confirm: Confirm = always) -> int:
        is_met = name.startswith(self.prefix)
        if is_met:
            self.before_put()
        size_bytes = super().put(name, parts, confirm)
        if is_met:
            self.after_put()
        return size_bytes


def lose_lock(repository: Repository) -> None:
    for each in list_locks(repository.objects):
        remove_lock(repository.objects, each)


def test_a_backup_that_was_taken_for_dead_commits_nothing() -> None:
    store = HookedStore("maps/")
    repository = make_repository(store)
    store.after_put = lambda: lose_lock(repository)
    with pytest.raises(LockLost):
        back_up_image(repository, make_mixed_image(200_000))
    assert repository.list_snapshots() == []


@pytest.mark.parametrize("loss", ["listed", "deleted"])
def test_a_snapshot_whose_content_goes_while_it_is_committed_is_withdrawn(loss: str) -> None:
    store = HookedStore("snapshots/")
    repository = make_repository(store)
    image = make_mixed_image(200_000)
    first = back_up_image(repository, image)

    def go() -> None:
        packs = tuple(load_index(repository).packs)
        if loss == "listed":
            list_for_deletion(repository, packs)
        else:
            store.objects = {name: data for name, data in store.objects.items() if not name.startswith("packs/")}

    store.before_put, store.after_put = go, lambda: lose_lock(repository)
    edit_at_random(image)
    with pytest.raises(LockLost):
        back_up_image(repository, image)
    assert [ref.id for ref in repository.list_snapshots()] == [first.id]


def test_a_snapshot_that_has_all_it_needs_stays_though_its_lock_was_lost() -> None:
    store = HookedStore("snapshots/")
    repository = make_repository(store)
    store.after_put = lambda: lose_lock(repository)
    image = make_mixed_image(200_000)
    assert_restores(repository, back_up_image(repository, image), image.content)


@pytest.mark.parametrize("is_pending", [False, True])
def test_what_only_deltas_need_is_looked_at_too(is_pending: bool) -> None:
    store = HookedStore("snapshots/")
    repository = make_repository(store)
    image = make_database_image(1 << 20)
    first = back_up_image(repository, image)
    sources = tuple(load_index(repository).packs)
    for page in range(0, image.size_bytes, PAGE):
        image.write(page, bytes(8))
    back_up_image(repository, image)
    forget_ids(repository, [first.id])
    store.after_put = lambda: lose_lock(repository)
    image.write(0, b"another")
    if is_pending:
        store.before_put = lambda: list_for_deletion(repository, sources)
        with pytest.raises(LockLost):
            back_up_image(repository, image)
    else:
        assert_restores(repository, back_up_image(repository, image), image.content)
    assert len(repository.list_snapshots()) == 2 - is_pending


def test_a_backup_refers_to_nothing_that_is_pending_deletion() -> None:
    repository = make_repository()
    image = make_mixed_image(200_000)
    back_up_image(repository, image, "vm1")
    packs = tuple(load_index(repository).packs)
    deletion = list_for_deletion(repository, packs)
    assert back_up_image(repository, image, "vm2").statistics.new_bytes > 0
    remove_deletion(repository, deletion)
    assert back_up_image(repository, image, "vm3").statistics.new_bytes == 0
