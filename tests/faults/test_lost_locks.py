# SPDX-License-Identifier: Apache-2.0
"""A process is frozen at the worst moment, its lock removed, and others go on without it; then it wakes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec
import pytest

from deltaimg.engine.check.findings import Severity
from deltaimg.engine.check.run import check
from deltaimg.engine.prune.run import prune
from deltaimg.engine.repair.run import repair
from deltaimg.engine.retention.forget import forget
from deltaimg.errors import LockLost, ReachabilityUnknown, StoreFull
from deltaimg.repo.lock_holder import list_locks
from deltaimg.repo.lock_watch import remove_lock
from deltaimg.repo.repository import Repository, SnapshotRef
from deltaimg.repo.retention import plan_named
from deltaimg.store.interface import Confirm, Parts, always
from deltaimg.store.memory import MemoryStore
from tests.support.images import SyntheticImage, edit_at_random, make_mixed_image
from tests.support.repositories import assert_restores, back_up_image, make_repository
from tests.support.retention import HookedStore


def take_for_dead(repository: Repository) -> None:
    """Do what others do once they have watched all locks stand still."""
    for each in list_locks(repository.objects):
        remove_lock(repository.objects, each)


def hooked(repository: Repository, call: str, act: Callable[[], object]) -> Repository:
    """Return the repository as a process sees it that sleeps just before `call`."""
    return Repository(HookedStore(repository.objects.store, call, act), repository.config)


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


@pytest.mark.parametrize("folder", ["packs/", "signatures/"])
def test_an_index_of_what_is_gone_is_a_note_and_the_next_prune_removes_it(folder: str) -> None:
    """A backup whose lock was removed had indexed it; `check` called that an error."""
    repository = make_repository()
    kept = back_up_image(repository, image_of(2), "kept")
    before = {found.name for found in repository.objects.store.list("")}
    gone = back_up_image(repository, image_of(1), "gone")
    repository.remove_snapshot(SnapshotRef.of(gone))
    lost = [found.name for found in repository.objects.store.list(folder) if found.name not in before]
    for name in lost:
        repository.objects.store.delete(name)
    report = check(repository, read_packs=True)
    assert not report.of(Severity.ERROR)
    assert any(f"names {lost[0]}, which is missing" in each.problem for each in report.of(Severity.NOTE))
    prune(repository)
    assert not [each for each in check(repository).of(Severity.NOTE) if "which is missing" in each.problem]
    assert {found.name.partition("/")[0] for found in repository.objects.store.list("index/")} == {"index"}
    assert_restores(repository, kept, image_of(2).content)


def test_what_a_prune_indexes_after_another_took_its_packs_hides_nothing() -> None:
    """Its newer index was believed, and a snapshot whose bytes were there did not restore any more."""
    repository = make_repository()
    gone = make_mixed_image(4_000_000, seed=2)
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


class SleepsAtTheVeryEnd(MemoryStore):
    """Runs `meanwhile` once, between the last look at the lock and the moment at which an object below `folder` appears."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = "none/"
        self.meanwhile: Callable[[], object] = lambda: None

    def put(self, name: str, parts: Parts, confirm: Confirm = always) -> int:
        def fall_asleep() -> None:
            confirm()
            if name.startswith(self.folder):
                self.folder = "none/"
                self.meanwhile()

        return super().put(name, parts, fall_asleep)


def test_a_snapshot_whose_map_goes_while_it_appears_does_not_stay() -> None:
    image = image_of(1)
    store = SleepsAtTheVeryEnd()
    repository = make_repository(store)
    first = back_up_image(repository, image)
    edit_at_random(image)

    def go_on() -> None:
        take_for_dead(repository)
        prune(repository)

    store.folder, store.meanwhile = "snapshots/", go_on
    with pytest.raises(LockLost):
        back_up_image(repository, image)
    assert [ref.id for ref in repository.list_snapshots()] == [first.id]
    prune(repository)
    assert_restores(repository, back_up_image(repository, image), image.content)


def test_a_snapshot_whose_base_goes_while_it_appears_is_whole() -> None:
    """It lists all that it needs by itself."""
    image = image_of(1)
    store = SleepsAtTheVeryEnd()
    repository = make_repository(store)
    back_up_image(repository, image)
    edit_at_random(image)

    def go_on() -> None:
        take_for_dead(repository)
        repository.remove_snapshot(repository.list_snapshots()[0])

    store.folder, store.meanwhile = "snapshots/", go_on
    manifest = back_up_image(repository, image)
    prune(repository)
    assert_restores(repository, manifest, image.content)


def test_a_stale_backup_that_stays_harms_no_other_snapshot() -> None:
    """It appears after a forget and a prune took what it lists, and sleeps again before it can look."""
    image = image_of(1)
    store = SleepsAtTheVeryEnd()
    repository = make_repository(store)
    for _ in range(2):
        good = back_up_image(repository, image)
        content = bytes(image.content)
        edit_at_random(image)
    stale = msgspec.structs.replace(good, id="f" * 16, time="20270101T000000.000000Z", maps=(*good.maps, "ab" * 32))
    repository.commit(stale)
    errors = check(repository).of(Severity.ERROR)
    assert [(each.object_name, stale.label in each.problem) for each in errors] == [(f"maps/{'ab' * 32}", True)]
    with pytest.raises(ReachabilityUnknown, match=f"'deltaimg forget {stale.label}'"):
        prune(repository)
    forget(repository, "vm1", partial(plan_named, ids=frozenset([stale.id])))
    prune(repository)
    assert_restores(repository, good, content)


def test_content_that_a_disk_lost_is_stored_again_by_the_next_backup() -> None:
    """It was referred to, since the index had it: backup after backup committed what could not be restored."""
    repository = make_repository()
    image = image_of(1)
    back_up_image(repository, image)
    for name in [found.name for found in repository.objects.store.list("packs/")]:
        repository.objects.store.delete(name)
    edit_at_random(image)
    assert_restores(repository, back_up_image(repository, image), image.content)


def test_a_repair_that_dies_between_two_steps_leaves_a_manifest_under_its_name() -> None:
    """It was in quarantine alone, as if it had been forgotten; the next repair did not miss it, and a prune took the rest."""
    repository = make_repository()
    manifest = back_up_image(repository, image_of(1))
    copy = MemoryStore()
    copy.objects = dict(repository.objects.store.objects)  # type: ignore[attr-defined]
    good = repository.objects.store.get(manifest.object_name)
    repository.objects.store.replace(manifest.object_name, [good[:-1] + b"?"])

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
    good = repository.objects.store.get(manifest.object_name)
    repository.objects.store.replace(manifest.object_name, [good[:-1] + b"?"])
    repair(repository)
    with pytest.raises(ReachabilityUnknown, match=r"quarantine/snapshots/.* is a damaged manifest in quarantine"):
        prune(repository)
    repository.objects.store.put(manifest.object_name, [good])
    prune(repository)
    assert_restores(repository, manifest, image_of(1).content)
