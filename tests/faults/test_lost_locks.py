# SPDX-License-Identifier: Apache-2.0
"""A process sleeps at the worst moment, is taken for dead, and others go on without it; then it wakes up."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from deltaimg.engine.prune.run import prune
from deltaimg.engine.repair.run import repair
from deltaimg.engine.retention.flatten import flatten
from deltaimg.engine.retention.pin import set_pin
from deltaimg.errors import LockLost, ReachabilityUnknown, StoreFull
from deltaimg.repo.lock_holder import list_locks, remove_lock
from deltaimg.repo.repository import Repository
from deltaimg.store.interface import Confirm, Parts, always
from deltaimg.store.memory import MemoryStore
from tests.support.images import SyntheticImage, edit_at_random, make_mixed_image
from tests.support.repositories import assert_restores, back_up_image, make_repository
from tests.support.retention import HookedStore


def take_for_dead(repository: Repository) -> None:
    """Do what others do once they have watched all locks stand still."""
    for each in list_locks(repository):
        remove_lock(repository.store, each)


def hooked(repository: Repository, call: str, act: Callable[[], object]) -> Repository:
    """Return the repository as a process sees it that sleeps just before `call`."""
    return Repository(HookedStore(repository.store, call, act), repository.config)


def image_of(seed: int) -> SyntheticImage:
    return make_mixed_image(400_000, seed=seed)


@pytest.mark.parametrize("call", ["put signatures/", "put index/"], ids=["before", "at the last moment"])
def test_what_a_backup_indexes_after_a_prune_took_its_packs_is_used_by_nobody(call: str) -> None:
    """The next backup referred to it, and committed a snapshot without content."""
    repository = make_repository()

    def go_on() -> None:
        take_for_dead(repository)
        assert prune(repository).freed_bytes > 0

    with pytest.raises(LockLost):
        back_up_image(hooked(repository, call, go_on), image_of(1))
    assert repository.list_snapshots() == []
    manifest = back_up_image(repository, image_of(1))
    assert_restores(repository, manifest, image_of(1).content)
    prune(repository)
    assert_restores(repository, manifest, image_of(1).content)


def test_what_a_prune_indexes_after_another_took_its_packs_hides_nothing() -> None:
    """Its newer index was believed, and a snapshot whose bytes were there did not restore any more."""
    repository = make_repository()
    gone = image_of(2)
    gone.content[:200_000] = image_of(1).content[:200_000]
    back_up_image(repository, gone, "one")
    manifest = back_up_image(repository, image_of(1), "two")
    repository.remove_snapshot(repository.list_snapshots("one")[0])

    def go_on() -> None:
        take_for_dead(repository)
        prune(repository)

    with pytest.raises(LockLost):
        prune(hooked(repository, "put index/", go_on))
    assert_restores(repository, manifest, image_of(1).content)
    prune(repository)
    assert_restores(repository, manifest, image_of(1).content)


@pytest.mark.parametrize("loss", ["map", "base"])
def test_a_snapshot_whose_map_or_base_goes_while_it_appears_does_not_stay(loss: str) -> None:
    image = image_of(1)

    class SleepsAtTheVeryEnd(MemoryStore):
        is_armed = False

        def put(self, name: str, parts: Parts, confirm: Confirm = always) -> int:
            def fall_asleep() -> None:
                confirm()
                if self.is_armed and name.startswith("snapshots/"):
                    self.is_armed = False
                    go_on()

            return super().put(name, parts, fall_asleep)

    store = SleepsAtTheVeryEnd()
    repository = make_repository(store)
    first = back_up_image(repository, image)

    def go_on() -> None:
        take_for_dead(repository)
        if loss == "map":
            prune(repository)
        else:
            repository.remove_snapshot(repository.list_snapshots()[0])

    edit_at_random(image)
    store.is_armed = True
    with pytest.raises(LockLost):
        back_up_image(repository, image)
    assert [ref.id for ref in repository.list_snapshots()] == ([first.id] if loss == "map" else [])
    prune(repository)
    assert_restores(repository, back_up_image(repository, image), image.content)


def test_a_manifest_is_not_put_over_one_that_others_changed_meanwhile() -> None:
    """A stale one brought back a map and a base that a forget and a prune had deleted."""
    repository = make_repository()
    image = image_of(1)
    back_up_image(repository, image)
    edit_at_random(image)
    tip = back_up_image(repository, image)
    refs = repository.list_snapshots()

    def go_on() -> None:
        take_for_dead(repository)
        flatten(repository, refs[1])
        repository.remove_snapshot(refs[0])
        prune(repository)

    with pytest.raises(LockLost):
        set_pin(hooked(repository, "replace snapshots/", go_on), refs[1], "keep")
    assert_restores(repository, repository.load_manifest(refs[1]), image.content)
    assert repository.load_manifest(refs[1]).root_digest == tip.root_digest


def test_content_that_a_disk_lost_is_stored_again_by_the_next_backup() -> None:
    """It was referred to, since the index had it: night after night committed what could not be restored."""
    repository = make_repository()
    image = image_of(1)
    back_up_image(repository, image)
    for name in [found.name for found in repository.store.list("packs/")]:
        repository.store.delete(name)
    edit_at_random(image)
    assert_restores(repository, back_up_image(repository, image), image.content)


def test_a_repair_that_dies_between_two_steps_leaves_a_manifest_under_its_name() -> None:
    """It was in quarantine alone, as if it had been forgotten; the next repair did not miss it, and a prune took the rest."""
    repository = make_repository()
    manifest = back_up_image(repository, image_of(1))
    copy = MemoryStore()
    copy.objects = dict(repository.store.inner.objects)  # type: ignore[attr-defined]
    good = repository.store.get(manifest.object_name)
    repository.store.replace(manifest.object_name, [good[:-1] + b"?"])

    def fill_up() -> None:
        raise StoreFull("snapshots/vm1", "no space")

    with pytest.raises(StoreFull):
        repair(hooked(repository, "replace snapshots/", fill_up), copy=Repository.open(copy))
    assert repair(repository, copy=Repository.open(copy)).copied == [manifest.object_name]
    prune(repository)
    assert_restores(repository, manifest, image_of(1).content)


def test_nothing_is_pruned_while_a_damaged_manifest_lies_in_quarantine() -> None:
    repository = make_repository()
    manifest = back_up_image(repository, image_of(1))
    good = repository.store.get(manifest.object_name)
    repository.store.replace(manifest.object_name, [good[:-1] + b"?"])
    repair(repository)
    with pytest.raises(ReachabilityUnknown, match=r"quarantine/snapshots/.* is a damaged manifest that was put aside"):
        prune(repository)
    repository.store.put(manifest.object_name, [good])
    prune(repository)
    assert_restores(repository, manifest, image_of(1).content)
