# SPDX-License-Identifier: Apache-2.0
"""Forgetting in chains: what is rewritten, what is proven, and what is refused."""

from __future__ import annotations

import contextlib

import msgspec
import numpy as np
import pytest

import deltaimg.engine.retention.forget as forget_module
from deltaimg.engine.restore.verify import verify
from deltaimg.engine.retention.forget import forget, forget_images, order_removals, plan_forget
from deltaimg.engine.retention.freed import count_freed
from deltaimg.engine.retention.pin import set_pin
from deltaimg.errors import (
    BrokenChain,
    DigestMismatch,
    IntegrityError,
    LastSnapshot,
    LockLost,
    RepositoryLocked,
    SnapshotPinned,
    StoreUnavailable,
    UsageError,
)
from deltaimg.format.manifest import Manifest, build_manifest
from deltaimg.repo.lock import ImageLock
from deltaimg.repo.repository import Repository
from deltaimg.repo.retention import plan_named
from deltaimg.store.interface import always
from deltaimg.store.memory import MemoryStore
from tests.support.clock import START, FixedClock
from tests.support.faults import FaultyStore
from tests.support.forgetting import (
    History,
    Night,
    assert_nights_are_whole,
    assert_same_snapshot,
    forget_ids,
    make_nights,
)
from tests.support.images import PAGE, SyntheticImage
from tests.support.repositories import Warnings, assert_restores, back_up_image, make_repository


def objects_of(history: History) -> dict[str, bytes]:
    store = history.repository.store.inner
    assert isinstance(store, MemoryStore)
    return store.objects


def load(repository: Repository) -> dict[str, Manifest]:
    return {ref.id: repository.load_manifest(ref) for ref in repository.list_snapshots()}


# -- what is left ------------------------------------------------------------------------------------------------------


def test_a_survivor_stands_on_the_nearest_night_that_is_kept() -> None:
    history = make_nights(8)
    nights = history.nights
    forget_ids(history.repository, [nights[place].id for place in (2, 3, 4, 6)])
    found = load(history.repository)
    assert set(found) == {nights[place].id for place in (0, 1, 5, 7)}
    assert found[nights[5].id].base == nights[1].id
    assert found[nights[7].id].base == nights[5].id
    assert found[nights[1].id] == nights[1].manifest
    assert_nights_are_whole(history.repository, nights)


def test_without_the_first_night_the_next_is_a_full_snapshot() -> None:
    history = make_nights(4)
    forget_ids(history.repository, [night.id for night in history.nights[:2]])
    first = load(history.repository)[history.nights[2].id]
    assert first.base is None
    assert first.map_is_full
    assert_nights_are_whole(history.repository, history.nights)


def test_forgetting_moves_no_data_and_reads_neither_index_nor_digests() -> None:
    history = make_nights(6)
    before = dict(objects_of(history))
    watched = FaultyStore(history.repository.store, StoreUnavailable("x", "gone"))
    forget_ids(Repository(watched, history.repository.config), [history.nights[2].id, history.nights[3].id])
    touched = {call.split()[1].split("/")[0] for call in watched.calls if "/" in call}
    assert touched <= {"maps", "snapshots", "locks"}
    after = objects_of(history)
    assert {name for name in after if name not in before} == {
        "maps/" + load(history.repository)[history.nights[4].id].map
    }
    assert all(after[name] == data for name, data in before.items() if name.startswith(("packs/", "index/", "sig")))
    # Each map of the chain is read once: one that is forgotten, too.
    assert len([call for call in watched.calls if call.startswith("get maps/")]) == 5


def test_the_next_backup_and_verify_go_on_from_what_is_left() -> None:
    history = make_nights(5)
    warnings = Warnings()
    forget_ids(history.repository, [history.nights[4].id, history.nights[2].id], progress=warnings)
    assert any("the newest snapshot of 'vm1' goes" in message for message in warnings.messages)
    later = back_up_image(history.repository, history.image, clock=FixedClock(history.nights[4].manifest.taken_at))
    assert later.base == history.nights[3].id
    assert_restores(history.repository, later, history.image.content)
    assert not any(each.damage for each in verify(history.repository, history.repository.list_snapshots(), workers=1))


def test_several_snapshots_may_stand_on_one_that_is_forgotten() -> None:
    """Backups make rows, but nothing says so in the format: two rows from one base are merged each for itself."""
    history = make_nights(3)
    repository, nights = history.repository, history.nights
    twin = msgspec.structs.replace(nights[2].manifest, id="00000000000000ff", time="20270101T000000.000000Z")
    repository.store.put(twin.object_name, [build_manifest(twin)])
    forget_ids(repository, [nights[1].id])
    found = load(repository)
    assert {found[nights[2].id].base, found[twin.id].base} == {nights[0].id}
    assert_nights_are_whole(repository, [*nights, Night(twin, nights[2].content)])


def test_a_full_map_in_the_middle_of_a_row_makes_a_full_one_above() -> None:
    history = make_nights(5)
    repository, nights = history.repository, history.nights
    forget_ids(repository, [nights[0].id])  # the second night has a full map now
    full = load(repository)[nights[1].id]
    rebased = msgspec.structs.replace(full, base=nights[0].id)
    repository.store.put(nights[0].manifest.object_name, [build_manifest(nights[0].manifest)])
    repository.replace_manifest(rebased, always)
    forget_ids(repository, [nights[1].id])
    found = load(repository)[nights[2].id]
    assert found.map_is_full
    assert found.base == nights[0].id
    assert_nights_are_whole(repository, nights)


def test_maps_of_far_apart_nights_say_only_what_differs() -> None:
    """What comes back to what it was takes no run, so that maps are those that a backup of the kept nights would write."""
    repository, image, clock = make_repository(), SyntheticImage(40 * PAGE, seed=3), FixedClock()
    image.write_random(0, 40 * PAGE)
    original = bytes(image.content)
    nights = []
    for content in (original, bytes(reversed(original)), original[:PAGE] + bytes(PAGE) + original[2 * PAGE :]):
        image.write(0, content)
        nights.append(Night(back_up_image(repository, image, clock=clock), content))
    forget_ids(repository, [nights[1].id])
    manifest = load(repository)[nights[2].id]
    data = repository.get_object("maps/", manifest.map)
    assert len(forget_module.parse_map(data, "x").runs) == 1
    assert_nights_are_whole(repository, nights)


# -- what is proven and refused ----------------------------------------------------------------------------------------


def test_nothing_changes_if_a_survivor_would_not_be_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    history = make_nights(5)
    real = forget_module.encode_map

    def encode_wrongly(numbers, runs, base, block_count):
        wrong = runs.copy()
        wrong["slot"][0] = 1 - min(1, int(wrong["slot"][0]))
        return real(numbers, wrong, base, block_count)

    monkeypatch.setattr(forget_module, "encode_map", encode_wrongly)
    before = dict(objects_of(history))
    with pytest.raises(IntegrityError, match="would not be the same"):
        forget_ids(history.repository, [history.nights[1].id])
    assert objects_of(history) == before


def test_a_damaged_map_that_a_survivor_needs_stops_it_before_anything_changes() -> None:
    history = make_nights(4)
    name = "maps/" + history.nights[1].manifest.map
    objects_of(history)[name] = objects_of(history)[name][:-1] + b"x"
    before = dict(objects_of(history))
    with pytest.raises(DigestMismatch):
        forget_ids(history.repository, [history.nights[1].id])
    assert objects_of(history) == before
    # Those that need it can all go, and then nothing of it is read.
    forget_ids(history.repository, [night.id for night in history.nights[1:]])
    assert_nights_are_whole(history.repository, history.nights[:1])


def test_a_broken_chain_and_a_circle_are_refused() -> None:
    history = make_nights(4)
    repository, nights = history.repository, history.nights
    circle = msgspec.structs.replace(nights[1].manifest, base=nights[2].id)
    repository.replace_manifest(circle, always)
    with pytest.raises(BrokenChain):
        forget_ids(repository, [nights[2].id])
    repository.replace_manifest(msgspec.structs.replace(circle, base="0" * 16), always)
    with pytest.raises(BrokenChain):
        forget_ids(repository, [nights[2].id])


def test_an_image_with_a_damaged_manifest_is_left_alone_and_others_are_not() -> None:
    history = make_nights(3)
    repository = history.repository
    other = [back_up_image(repository, history.image, "vm2", clock=FixedClock()) for _ in range(2)]
    name = history.nights[1].manifest.object_name
    objects_of(history)[name] = objects_of(history)[name][:-1]
    ids = frozenset([history.nights[0].id, other[0].id])
    results = forget_images(
        repository,
        dict.fromkeys(("vm1", "vm2"), lambda manifests: plan_named(manifests, ids & {m.id for m in manifests})),
    )
    assert isinstance(results[0].error, IntegrityError)
    assert results[1].plan is not None
    assert [ref.id for ref in repository.list_snapshots("vm2")] == [other[1].id]
    assert len(repository.list_snapshots("vm1")) == 3


def test_the_last_and_the_pinned_stay() -> None:
    history = make_nights(2)
    ids = [night.id for night in history.nights]
    with pytest.raises(LastSnapshot):
        forget_ids(history.repository, ids)
    set_pin(history.repository, history.repository.list_snapshots()[0], "audit", clock=FixedClock())
    with pytest.raises(SnapshotPinned, match="audit"):
        forget_ids(history.repository, ids, is_forced=True)
    set_pin(history.repository, history.repository.list_snapshots()[0], None, clock=FixedClock())
    forget_ids(history.repository, ids, is_forced=True)
    assert not history.repository.list_snapshots()


def test_nobody_else_works_on_the_image_meanwhile() -> None:
    history = make_nights(2)
    with ImageLock(history.repository, "vm1", "backup", START), pytest.raises(RepositoryLocked):
        forget_ids(history.repository, [history.nights[0].id])


def test_a_lost_lock_ends_it_before_the_next_change(monkeypatch: pytest.MonkeyPatch) -> None:
    history = make_nights(4)
    store = history.repository.store.inner
    real = forget_module.encode_map

    def lose_the_lock(*arguments):
        store.delete("locks/vm1")
        return real(*arguments)

    monkeypatch.setattr(forget_module, "encode_map", lose_the_lock)
    with pytest.raises(LockLost):
        forget_ids(history.repository, [history.nights[1].id])
    assert list(load(history.repository).values()) == [night.manifest for night in history.nights]


def test_removals_never_leave_a_snapshot_without_its_base() -> None:
    history = make_nights(6)
    manifests = [night.manifest for night in history.nights]
    order = order_removals(manifests[1:5])
    assert [each.id for each in order] == [each.id for each in reversed(manifests[1:5])]
    circle = [
        msgspec.structs.replace(manifests[1], base=manifests[2].id),
        msgspec.structs.replace(manifests[2], base=manifests[1].id),
    ]
    assert len(order_removals(circle)) == 2


# -- crashes -----------------------------------------------------------------------------------------------------------


def test_at_every_moment_all_that_is_listed_restores_and_a_second_run_finishes() -> None:
    places = (0, 2, 3, 5)

    def make() -> tuple[History, FaultyStore]:
        history = make_nights(7, size_bytes=120_000)
        return history, FaultyStore(history.repository.store, StoreUnavailable("x", "gone"))

    history, counting = make()
    forget_ids(Repository(counting, history.repository.config), [history.nights[place].id for place in places])
    changes = [n for n, call in enumerate(counting.calls) if call.split()[0] in ("put", "replace", "delete")]
    assert len(changes) >= 3 * 2 + 4
    for number in changes:
        for after_effect in (False, True):
            history, _ = make()
            inner = history.repository.store.inner
            faulty = FaultyStore(
                inner, StoreUnavailable("x", "gone"), fail_at=number, after_effect=after_effect, is_lasting=True
            )
            ids = [history.nights[place].id for place in places]
            with contextlib.suppress(StoreUnavailable):
                forget_ids(Repository(faulty, history.repository.config), ids)
            for name in [name for name in objects_of(history) if name.startswith("locks/")]:
                inner.delete(name)  # its owner, this process, lives on
            assert_nights_are_whole(history.repository, history.nights)
            forget_ids(history.repository, ids)
            assert set(load(history.repository)) == {history.nights[place].id for place in (1, 4, 6)}
            assert_nights_are_whole(history.repository, history.nights)


# -- what is freed, pins -----------------------------------------------------------------------------------------------


def test_what_is_freed_is_what_nothing_left_refers_to() -> None:
    repository, image, clock = make_repository(), SyntheticImage(64 * PAGE, seed=5), FixedClock()
    nights = []
    for _ in range(4):
        image.write_random(0, 64 * PAGE)
        nights.append(back_up_image(repository, image, clock=clock, delta="none"))
    same = back_up_image(repository, image, clock=clock)
    plan = plan_forget(repository, "vm1", lambda all_: plan_named(all_, frozenset([nights[0].id, nights[3].id])))
    freed = count_freed(repository, [plan])
    assert freed[nights[0].id] == 64 * PAGE
    assert freed[nights[3].id] == 0  # the last night has all of it
    plan = plan_forget(
        repository, "vm1", lambda all_: plan_named(all_, frozenset([nights[3].id, same.id, nights[1].id]))
    )
    freed = count_freed(repository, [plan])
    assert freed == {nights[1].id: 64 * PAGE, nights[3].id: 0, same.id: 64 * PAGE}


def test_what_others_are_encoded_against_is_not_freed() -> None:
    repository, image, clock = make_repository(), SyntheticImage(64 * PAGE, seed=5), FixedClock()
    image.write_random(0, 64 * PAGE)
    first = back_up_image(repository, image, clock=clock)
    for offset in range(100, 64 * PAGE, PAGE):
        image.write(offset, b"changed")
    second = back_up_image(repository, image, clock=clock, delta="zstd")
    assert second.statistics.stored_bytes < 32 * PAGE
    plan = plan_forget(repository, "vm1", lambda all_: plan_named(all_, frozenset([first.id])))
    assert count_freed(repository, [plan]) == {first.id: 0}
    plan = plan_forget(
        repository, "vm1", lambda all_: plan_named(all_, frozenset([first.id, second.id]), is_forced=True)
    )
    assert sum(count_freed(repository, [plan]).values()) >= 64 * PAGE


def test_a_plan_of_what_cannot_be_told_says_so_and_is_made_all_the_same() -> None:
    history = make_nights(3)
    name = "maps/" + history.nights[2].manifest.map
    objects_of(history)[name] = objects_of(history)[name][:-1]
    warnings = Warnings()
    results = forget_images(
        history.repository,
        {"vm1": lambda all_: plan_named(all_, frozenset([history.nights[2].id]))},
        is_dry_run=True,
        progress=warnings,
    )
    assert results[0].plan is not None
    assert results[0].freed_bytes is None
    assert "what would be freed cannot be told" in warnings.messages[0]


def test_a_pin_is_all_that_pinning_changes() -> None:
    history = make_nights(2)
    ref = history.repository.list_snapshots()[0]
    pinned = set_pin(history.repository, ref, "", clock=FixedClock())
    assert pinned.pin_reason == ""
    assert set_pin(history.repository, ref, "because", clock=FixedClock()).pin_reason == "because"
    assert history.repository.load_manifest(ref) == msgspec.structs.replace(pinned, pinned="because")
    assert_restores(history.repository, history.repository.load_manifest(ref), history.nights[0].content)
    unpinned = set_pin(history.repository, ref, None, clock=FixedClock())
    assert unpinned == history.nights[0].manifest == history.repository.load_manifest(ref)
    for reason in ("x" * 201, "two\nlines"):
        with pytest.raises(UsageError):
            set_pin(history.repository, ref, reason, clock=FixedClock())


def test_a_pinned_base_keeps_its_pin_when_its_own_base_goes() -> None:
    history = make_nights(4)
    set_pin(history.repository, history.repository.list_snapshots()[2], "kept", clock=FixedClock())
    forget_ids(history.repository, [history.nights[1].id])
    found = load(history.repository)[history.nights[2].id]
    assert found.pin_reason == "kept"
    assert_same_snapshot(msgspec.structs.replace(found, pinned=msgspec.UNSET), history.nights[2].manifest)


def test_a_plan_that_forgets_nothing_changes_nothing() -> None:
    history = make_nights(2)
    before = dict(objects_of(history))
    plan = forget(history.repository, "vm1", lambda all_: plan_named(all_, frozenset()), clock=FixedClock())
    assert not plan.forgotten
    assert np.all([objects_of(history)[name] == data for name, data in before.items()])
