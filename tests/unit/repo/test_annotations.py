# SPDX-License-Identifier: Apache-2.0
"""Pins, tags and comments beside manifests: written once, the newest counts, and a stale writer changes nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from deltaimg.engine.retention.annotate import change_tags, set_pin
from deltaimg.errors import LockLost, StoreUnavailable, UsageError
from deltaimg.format.annotation import parse_annotation
from deltaimg.repo.annotations import load_said
from deltaimg.repo.repository import Repository, SnapshotRef
from deltaimg.repo.snapshots import Snapshot, load_snapshot, load_snapshots
from deltaimg.store.memory import MemoryStore
from tests.support.clock import FixedClock
from tests.support.faults import FaultyStore
from tests.support.history import History, forget_ids, make_history
from tests.support.locks import remove_claims
from tests.support.retention import HookedStore


def make_small_history() -> tuple[History, MemoryStore, SnapshotRef]:
    history = make_history(2)
    store = history.repository.objects.store
    assert isinstance(store, MemoryStore)
    return history, store, history.repository.list_snapshots()[0]


def names(store: MemoryStore) -> list[str]:
    return sorted(name for name in store.objects if name.startswith("annotations/"))


def test_what_is_said_stands_beside_a_manifest_that_never_changes() -> None:
    history, store, ref = make_small_history()
    before = store.objects[ref.object_name]
    clock = FixedClock()
    assert load_snapshot(history.repository, ref).pin_reason is None
    assert set_pin(history.repository, ref, "", clock=clock).pin_reason == ""
    assert change_tags(history.repository, ref, added=["a", "b", "a"], clock=clock).tags == ("a", "b")
    clock.advance(hours=1)
    found = set_pin(history.repository, ref, "because", clock=clock)
    assert (found.pin_reason, found.tags) == ("because", ("a", "b"))
    assert change_tags(history.repository, ref, added=["c"], removed=["a", "x"], clock=clock).tags == ("b", "c")
    assert set_pin(history.repository, ref, None, clock=clock).pin_reason is None
    assert load_snapshot(history.repository, ref).tags == ("b", "c")
    assert store.objects[ref.object_name] == before
    (name,) = names(store)
    annotation = parse_annotation(store.objects[name], name)
    assert (annotation.number, annotation.time) == (5, "20261123T033000.000000Z")
    assert annotation.owner
    assert annotation.host


def test_saying_the_same_again_writes_nothing() -> None:
    history, store, ref = make_small_history()
    set_pin(history.repository, ref, "why", clock=FixedClock())
    before = dict(store.objects)
    set_pin(history.repository, ref, "why", clock=FixedClock())
    assert store.objects == before
    set_pin(history.repository, history.repository.list_snapshots()[1], None, clock=FixedClock())
    change_tags(history.repository, ref, removed=["x"], clock=FixedClock())
    assert store.objects == before


@pytest.mark.parametrize("text", ["x" * 501, "two\nlines", "\x1b[2J"])
def test_what_is_said_is_short_and_can_be_printed(text: str) -> None:
    history, store, ref = make_small_history()
    with pytest.raises(UsageError):
        set_pin(history.repository, ref, text, clock=FixedClock())
    for tag in (text, "", "a,b", " a", "x" * 101):
        with pytest.raises(UsageError):
            change_tags(history.repository, ref, added=[tag], clock=FixedClock())
    with pytest.raises(UsageError, match="65 tags"):
        change_tags(history.repository, ref, added=[str(number) for number in range(65)], clock=FixedClock())
    assert not names(store)


def test_a_damaged_annotation_gives_way_to_an_older_one_and_is_told() -> None:
    history, store, ref = make_small_history()
    set_pin(history.repository, ref, "why", clock=FixedClock())
    (name,) = names(store)
    newer = name.replace("-00000001", "-00000002")
    store.objects[newer] = store.objects[name][:-3]
    said = load_said(history.repository, ref)
    assert said.annotation is not None
    assert said.annotation.pinned == "why"
    assert said.error is not None
    assert newer in str(said.error)
    found = set_pin(history.repository, ref, None, clock=FixedClock())
    assert (found.pin_reason, found.said.error) == (None, None)
    assert names(store) == [name.replace("-00000001", "-00000003")]


def test_another_snapshots_annotation_is_none_of_this_one() -> None:
    history, store, ref = make_small_history()
    other = history.repository.list_snapshots()[1]
    set_pin(history.repository, other, "why", clock=FixedClock())
    (name,) = names(store)
    store.objects[name.replace(other.id, ref.id)] = store.objects.pop(name)
    said = load_said(history.repository, ref)
    assert said.annotation is None
    assert said.error is not None


def test_an_annotation_that_is_replaced_while_it_is_read_is_read_again() -> None:
    history, store, ref = make_small_history()
    set_pin(history.repository, ref, "first", clock=FixedClock())

    def say_more() -> None:
        set_pin(history.repository, ref, "second", clock=FixedClock())

    hooked = Repository(HookedStore(store, "get annotations/", say_more), history.repository.config)
    pins = {each.ref: each.pin_reason for each in load_snapshots(hooked)}
    assert pins[ref] == "second"


# -- crashes, and locks that are lost ------------------------------------------------------------------------------------


@pytest.mark.parametrize("after_effect", [False, True])
def test_a_change_that_fails_anywhere_is_made_or_is_not(after_effect: bool) -> None:
    number = 0
    while True:
        history, store, ref = make_small_history()
        set_pin(history.repository, ref, "before", clock=FixedClock())
        faulty = FaultyStore(
            store, StoreUnavailable("x", "gone"), fail_at=number, after_effect=after_effect, is_lasting=True
        )
        with contextlib.suppress(StoreUnavailable):
            set_pin(Repository(faulty, history.repository.config), ref, "after", clock=FixedClock())
        for name in [name for name in store.objects if name.startswith("locks/")]:
            store.delete(name)
        assert load_snapshot(history.repository, ref).pin_reason in ("before", "after")
        assert set_pin(history.repository, ref, "again", clock=FixedClock()).pin_reason == "again"
        assert len(names(store)) == 1
        if number > len(faulty.calls):
            return
        number += 1


Others = Callable[[History, SnapshotRef], object]


def say_something_else(history: History, ref: SnapshotRef) -> None:
    for reason in ("theirs", "theirs at last"):
        set_pin(history.repository, ref, reason, clock=FixedClock())


def forget_it(history: History, ref: SnapshotRef) -> None:
    set_pin(history.repository, ref, None, clock=FixedClock())
    forget_ids(history.repository, [ref.id])


@pytest.mark.parametrize("others", [say_something_else, forget_it])
@pytest.mark.parametrize("call", ["list annotations/", "get annotations/", "put annotations/", "get_range locks/"])
def test_whoever_lost_the_lock_meanwhile_is_told_and_changes_nothing(others: Others, call: str) -> None:
    history, store, ref = make_small_history()
    set_pin(history.repository, ref, "before", clock=FixedClock())

    def overtake() -> None:
        remove_claims(store)
        others(history, ref)

    hooked = Repository(HookedStore(store, call, overtake), history.repository.config)
    with pytest.raises(LockLost):
        set_pin(hooked, ref, "mine", clock=FixedClock())
    left = list(load_snapshots(history.repository))
    assert all(isinstance(each, Snapshot) for each in left)
    assert [each.pin_reason for each in left if each.ref == ref] == (
        ["theirs at last"] if others is say_something_else else []
    )
    assert len(names(store)) == (1 if others is say_something_else else 0)
