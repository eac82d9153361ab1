# SPDX-License-Identifier: Apache-2.0
"""Lists of what is pending deletion: written once, and ignored when they cannot be read."""

from __future__ import annotations

import pytest

from deltaimg.engine.prune.run import prune
from deltaimg.errors import LockLost
from deltaimg.format.deletion import Deletion, DeletionLocks, build_deletion
from deltaimg.format.framing import SALT_BYTES
from deltaimg.format.map import MAPS
from deltaimg.options.prune import PruneOptions
from deltaimg.repo.deletions import list_orphaned_locks, load_deletions, put_deletion, record_locks
from deltaimg.repo.lock import ReaderLock
from deltaimg.repo.object_kinds import MAP
from deltaimg.repo.repository import Repository
from deltaimg.store.interface import always
from deltaimg.store.memory import MemoryStore
from tests.support.clock import START
from tests.support.images import make_incompressible_image
from tests.support.locks import remove_claims
from tests.support.repositories import Warnings, assert_restores, back_up_image, make_repository
from tests.support.retention import HookedStore, keep_only

LISTED = Deletion(id="0" * 15 + "1", created="x", packs=("11" * 32,))
DAMAGE = {
    "flipped": lambda data: data[:70] + bytes([data[70] ^ 1]) + data[71:],
    "truncated": lambda data: data[:-1],
    "empty": lambda _: b"",
    "foreign": lambda _: b"not ours",
    "of another id": lambda _: build_deletion(Deletion(id="f" * 16, created="x")),
}


def with_pending_deletions() -> tuple[Repository, MemoryStore]:
    """Return a repository in which a prune has listed all that one of two images had, and waits for a reader."""
    store = MemoryStore()
    repository = make_repository(store)
    back_up_image(repository, make_incompressible_image(300_000, seed=1), "gone")
    kept = back_up_image(repository, make_incompressible_image(300_000, seed=2), "kept")
    keep_only(repository, [kept.id])
    with ReaderLock(repository, "restore", START):
        assert prune(repository, PruneOptions(max_unused_percent=0)).freed_bytes == 0
    return repository, store


def damage_list(store: MemoryStore, how: str) -> str:
    (name,) = [name for name in store.objects if name.startswith("deletions/") and not name.endswith("-locks")]
    store.objects[name] = DAMAGE[how](store.objects[name])
    return name


def test_equal_content_never_has_the_same_name_twice_unless_a_test_gives_the_salt() -> None:
    repository = make_repository()
    first, _ = repository.objects.put_named(MAP, [bytes(64)])
    repository.objects.store.delete(MAPS + first)
    assert repository.objects.put_named(MAP, [bytes(64)])[0] != first
    named = repository.objects.put_named(MAP, [bytes(64)], salt=bytes(SALT_BYTES))[0]
    repository.objects.store.delete(MAPS + named)
    assert repository.objects.put_named(MAP, [bytes(64)], salt=bytes(SALT_BYTES))[0] == named


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_list_stops_no_backup_and_the_next_prune_moves_it_to_quarantine(how: str) -> None:
    repository, store = with_pending_deletions()
    name = damage_list(store, how)
    image = make_incompressible_image(300_000, seed=1)
    manifest = back_up_image(repository, image, "new")
    progress = Warnings()
    prune(repository, PruneOptions(max_unused_percent=0), progress=progress)
    assert [name in message for message in progress.messages] == [True]
    assert f"quarantine/{name}" in store.objects
    assert not load_deletions(repository)
    assert not [each for each in store.objects if each.startswith("deletions/")]
    assert manifest.statistics.new_bytes == 0
    assert_restores(repository, manifest, image.content)


def test_what_a_damaged_list_named_is_deleted_once_a_prune_lists_it_again() -> None:
    repository, store = with_pending_deletions()
    damage_list(store, "flipped")
    before = sum(map(len, store.objects.values()))
    assert prune(repository, PruneOptions(max_unused_percent=0)).freed_bytes > 200_000
    assert sum(map(len, store.objects.values())) < before - 200_000


@pytest.mark.parametrize("how", DAMAGE)
def test_locks_of_a_list_that_cannot_be_read_are_recorded_again(how: str) -> None:
    repository, store = with_pending_deletions()
    (name,) = [name for name in store.objects if name.endswith("-locks")]
    store.objects[name] = DAMAGE[how](store.objects[name])
    with ReaderLock(repository, "restore", START) as reader:
        assert prune(repository, PruneOptions(max_unused_percent=0)).freed_bytes == 0
        assert load_deletions(repository)[0].waits_for == {reader.token}
    assert prune(repository, PruneOptions(max_unused_percent=0)).freed_bytes > 200_000


def test_the_first_record_of_locks_counts() -> None:
    repository = make_repository()
    put_deletion(repository, LISTED, always)
    assert record_locks(repository, DeletionLocks(id=LISTED.id, waits_for=("a",)), always) == {"a"}
    assert record_locks(repository, DeletionLocks(id=LISTED.id, waits_for=("b",)), always) == {"a"}


def test_recorded_locks_of_a_list_that_is_gone_are_removed_by_the_next_prune() -> None:
    repository = make_repository()
    record_locks(repository, DeletionLocks(id=LISTED.id, waits_for=()), always)
    assert list_orphaned_locks(repository) == [f"deletions/{LISTED.id}-locks"]
    prune(repository)
    assert not list_orphaned_locks(repository)


def test_names_that_no_prune_gives_are_left_alone() -> None:
    repository, store = with_pending_deletions()
    store.objects["deletions/.nfs0001"] = b"x"
    assert len(load_deletions(repository)) == 1
    prune(repository)
    assert store.objects["deletions/.nfs0001"] == b"x"


def test_a_prune_that_loses_its_lock_while_its_list_appears_takes_the_list_back() -> None:
    repository, store = with_pending_deletions()
    prune(repository, PruneOptions(max_unused_percent=0))
    keep_only(repository, [])

    class LosesLock(HookedStore):
        def put(self, name: str, parts, confirm=always) -> int:  # type: ignore[no-untyped-def]
            size = super().put(name, parts, confirm)
            if name.startswith("deletions/"):
                remove_claims(store, ".maintenance")
            return size

    with pytest.raises(LockLost):
        prune(Repository(LosesLock(store, "never", lambda: None), repository.config))
    assert not [name for name in store.objects if name.startswith("deletions/")]
