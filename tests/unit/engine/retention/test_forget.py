# SPDX-License-Identifier: Apache-2.0
"""Forgetting in chains: what goes, what stays as it is, and what is refused."""

from __future__ import annotations

import contextlib

import pytest

from deltaimg.engine.restore.verify import verify
from deltaimg.engine.retention.annotate import set_pin
from deltaimg.engine.retention.forget import forget, forget_images
from deltaimg.errors import LastSnapshot, LockLost, RepositoryLocked, SnapshotPinned, StoreUnavailable
from deltaimg.options.keep import Policy
from deltaimg.repo.lock import ImageLock
from deltaimg.repo.repository import Repository
from deltaimg.repo.retention import plan_named, plan_policy
from deltaimg.store.memory import MemoryStore
from tests.support.clock import START, FixedClock
from tests.support.faults import FaultyStore
from tests.support.history import History, assert_snapshots_restore, forget_ids, make_history
from tests.support.locks import remove_claims
from tests.support.repositories import Warnings, assert_restores, back_up_image
from tests.support.retention import HookedStore
from tests.support.wrapping import WatchedStore


def objects_of(history: History) -> dict[str, bytes]:
    store = history.repository.objects.store
    assert isinstance(store, MemoryStore)
    return store.objects


def listed_ids(repository: Repository) -> set[str]:
    return {ref.id for ref in repository.list_snapshots()}


def damage(history: History, place: int) -> None:
    name = history.snapshots[place].manifest.object_name
    objects_of(history)[name] = objects_of(history)[name][:-1]


# -- what is left ------------------------------------------------------------------------------------------------------


def test_all_that_is_not_forgotten_is_the_same_and_restores() -> None:
    history = make_history(8)
    snapshots = history.snapshots
    forget_ids(history.repository, [snapshots[place].id for place in (0, 2, 3, 4, 6)])
    assert listed_ids(history.repository) == {snapshots[place].id for place in (1, 5, 7)}
    assert_snapshots_restore(history.repository, snapshots)


def test_forgetting_removes_manifests_and_touches_nothing_else() -> None:
    history = make_history(6)
    before = dict(objects_of(history))
    watched = WatchedStore(history.repository.objects.store)
    going = [history.snapshots[place] for place in (2, 3)]
    forget_ids(Repository(watched, history.repository.config), [snapshot.id for snapshot in going])
    assert before.keys() - objects_of(history).keys() == {snapshot.manifest.object_name for snapshot in going}
    assert objects_of(history).items() <= before.items()
    touched = {call.split()[1].split("/")[0] for call in watched.calls if "/" in call}
    assert touched <= {"snapshots", "annotations", "locks", "quarantine"}
    assert len([call for call in watched.calls if call.startswith("delete snapshots/")]) == 2


def test_what_was_said_about_a_snapshot_goes_with_it() -> None:
    history = make_history(3)
    refs = history.repository.list_snapshots()
    for ref in refs[:2]:
        set_pin(history.repository, ref, "why", clock=FixedClock())
    set_pin(history.repository, refs[0], None, clock=FixedClock())
    forget_ids(history.repository, [refs[0].id])
    said = [name for name in objects_of(history) if name.startswith("annotations/")]
    assert len(said) == 1
    assert refs[1].id in said[0]


def test_the_next_backup_and_verify_go_on_from_what_is_left() -> None:
    history = make_history(5)
    warnings = Warnings()
    forget_ids(history.repository, [history.snapshots[4].id, history.snapshots[2].id], progress=warnings)
    assert any("the newest snapshot of 'vm1' is forgotten" in message for message in warnings.messages)
    later = back_up_image(history.repository, history.image, clock=FixedClock(history.snapshots[4].manifest.taken_at))
    assert (later.base, later.base_time) == (history.snapshots[3].id, history.snapshots[3].manifest.time)
    assert_restores(history.repository, later, history.image.content)
    assert not any(each.damage for each in verify(history.repository, history.repository.list_snapshots(), workers=1))


# -- what is damaged -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [(0,), (3,), (0, 1, 2, 4), (5,), (1, 3, 5)])
def test_any_subset_of_manifests_lost_costs_no_other_snapshot(lost: tuple[int, ...]) -> None:
    history = make_history(6)
    for place in lost:
        objects_of(history).pop(history.snapshots[place].manifest.object_name)
    assert len(history.repository.list_snapshots()) == 6 - len(lost)
    assert_snapshots_restore(history.repository, history.snapshots)


def test_damaged_snapshots_are_no_obstacle_and_are_forgotten_by_name() -> None:
    history = make_history(5)
    snapshots = history.snapshots
    for place in (1, 3):
        damage(history, place)
    warnings = Warnings()
    forget_ids(history.repository, [snapshots[0].id, snapshots[1].id], progress=warnings)
    assert listed_ids(history.repository) == {snapshots[place].id for place in (2, 3, 4)}
    assert len(warnings.messages) == 1, "the damaged one that stays is named"
    assert snapshots[3].manifest.label in warnings.messages[0]
    forget_ids(history.repository, [snapshots[3].id])
    assert_snapshots_restore(history.repository, snapshots)


def test_a_damaged_snapshot_that_is_pinned_stays() -> None:
    history = make_history(2)
    set_pin(history.repository, history.repository.list_snapshots()[0], "audit", clock=FixedClock())
    damage(history, 0)
    with pytest.raises(SnapshotPinned, match="audit"):
        forget_ids(history.repository, [history.snapshots[0].id])


def test_a_policy_keeps_what_is_damaged() -> None:
    history = make_history(5)
    damage(history, 0)
    policy = Policy(last=1)
    plan = forget(
        history.repository,
        "vm1",
        lambda all_: plan_policy(all_, policy, now=START.replace(year=2030)),
        clock=FixedClock(),
    )
    assert [ref.id for ref in plan.kept] == [history.snapshots[place].id for place in (0, 4)]


def test_a_manifest_in_quarantine_goes_with_its_snapshot() -> None:
    history = make_history(3)
    store, name = history.repository.objects.store, history.snapshots[1].manifest.object_name
    store.move(name, f"quarantine/{name}")
    store.put(f"quarantine/{name}.2", [b"an older one"])
    forget_ids(history.repository, [history.snapshots[1].id])
    assert not [each for each in objects_of(history) if each.startswith("quarantine/")]


# -- what is refused -----------------------------------------------------------------------------------------------------


def test_the_last_and_the_pinned_stay() -> None:
    history = make_history(2)
    ids = [snapshot.id for snapshot in history.snapshots]
    with pytest.raises(LastSnapshot):
        forget_ids(history.repository, ids)
    set_pin(history.repository, history.repository.list_snapshots()[0], "audit", clock=FixedClock())
    with pytest.raises(SnapshotPinned, match="audit"):
        forget_ids(history.repository, ids, is_forced=True)
    set_pin(history.repository, history.repository.list_snapshots()[0], None, clock=FixedClock())
    forget_ids(history.repository, ids, is_forced=True)
    assert not history.repository.list_snapshots()


def test_what_fails_in_one_image_leaves_the_others_alone() -> None:
    history = make_history(2)
    other = [back_up_image(history.repository, history.image, "vm2", clock=FixedClock()) for _ in range(2)]
    ids = frozenset([*(snapshot.id for snapshot in history.snapshots), other[0].id])
    results = forget_images(history.repository, dict.fromkeys(("vm1", "vm2"), lambda all_: plan_named(all_, ids)))
    assert isinstance(results[0].error, LastSnapshot)
    assert results[1].plan is not None
    assert [ref.id for ref in history.repository.list_snapshots("vm2")] == [other[1].id]


def test_nobody_else_works_on_the_image_meanwhile() -> None:
    history = make_history(2)
    with ImageLock(history.repository, "vm1", "backup", START), pytest.raises(RepositoryLocked):
        forget_ids(history.repository, [history.snapshots[0].id])


def test_a_lost_lock_ends_it_before_the_next_removals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deltaimg.repo.objects._REMOVED_AT_ONCE", 1)
    history = make_history(4)
    store = history.repository.objects.store
    hooked = HookedStore(store, "delete snapshots/", lambda: remove_claims(store))
    with pytest.raises(LockLost):
        forget_ids(Repository(hooked, history.repository.config), [snapshot.id for snapshot in history.snapshots[:3]])
    assert listed_ids(history.repository) == {snapshot.id for snapshot in history.snapshots[1:]}


def test_a_plan_that_forgets_nothing_changes_nothing() -> None:
    history = make_history(2)
    before = dict(objects_of(history))
    plan = forget(history.repository, "vm1", lambda all_: plan_named(all_, frozenset()), clock=FixedClock())
    assert not plan.forgotten
    assert objects_of(history) == before


# -- crashes -----------------------------------------------------------------------------------------------------------


def test_at_every_moment_all_that_is_listed_restores_and_a_second_run_finishes() -> None:
    places = (0, 2, 3, 5)

    def make() -> tuple[History, WatchedStore]:
        history = make_history(7, size_bytes=120_000)
        set_pin(history.repository, history.repository.list_snapshots()[2], "why", clock=FixedClock())
        set_pin(history.repository, history.repository.list_snapshots()[2], None, clock=FixedClock())
        return history, WatchedStore(history.repository.objects.store)

    history, counting = make()
    forget_ids(Repository(counting, history.repository.config), [history.snapshots[place].id for place in places])
    assert len(counting.changing) >= 4 + 1 + 2
    for number in counting.changing:
        for after_effect in (False, True):
            history, _ = make()
            inner = history.repository.objects.store
            faulty = FaultyStore(
                inner, StoreUnavailable("x", "gone"), fail_at=number, after_effect=after_effect, is_lasting=True
            )
            ids = [history.snapshots[place].id for place in places]
            with contextlib.suppress(StoreUnavailable):
                forget_ids(Repository(faulty, history.repository.config), ids)
            for name in [name for name in objects_of(history) if name.startswith("locks/")]:
                inner.delete(name)  # its owner, this process, lives on
            assert_snapshots_restore(history.repository, history.snapshots)
            forget_ids(history.repository, ids)
            assert listed_ids(history.repository) == {history.snapshots[place].id for place in (1, 4, 6)}
            assert_snapshots_restore(history.repository, history.snapshots)
