# SPDX-License-Identifier: Apache-2.0
"""Calls over a network are made again while that helps, and what a lost answer was about is found out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from deltaimg.errors import LockLost, ObjectExists, ObjectNotFound, PermissionDenied, StoreError, StoreUnavailable
from deltaimg.store.interface import Store
from deltaimg.store.memory import MemoryStore
from deltaimg.store.retry import Backoff
from deltaimg.store.retrying import RetryingStore
from tests.support.wrapping import WrappedStore


class Flaky(WrappedStore):
    """Fails the next calls, before or after they take effect."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.before: list[StoreError] = []
        self.after: list[StoreError] = []
        self.calls: list[str] = []

    @contextmanager
    def around(self, call: str) -> Iterator[None]:
        self.calls.append(call)
        if self.before:
            raise self.before.pop()
        yield
        if self.after:
            raise self.after.pop()


class Pauses:
    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.is_ending = False

    def __call__(self, seconds: float) -> bool:
        self.seconds.append(seconds)
        return self.is_ending


def gone(count: int = 1) -> list[StoreError]:
    return [StoreUnavailable("x", "does not answer") for _ in range(count)]


def make(tries: int = 10) -> tuple[Flaky, RetryingStore, Pauses]:
    pauses = Pauses()
    flaky = Flaky(MemoryStore())
    patient = Backoff(tries=tries, sleep=pauses, draw=lambda: 1.0)
    return flaky, RetryingStore(flaky, patient, Backoff(tries=3, sleep=pauses)), pauses


def make_well(tries: int = 10) -> tuple[Flaky, RetryingStore, Pauses]:
    flaky, store, pauses = make(tries)
    assert [*store.list("")] == []
    flaky.calls.clear()
    return flaky, store, pauses


CALLS: dict[str, Callable[[Store], object]] = {
    "put": lambda store: store.put("new", [b"n"]),
    "get": lambda store: store.get("one"),
    "get_range": lambda store: store.get_range("one", 0, 1),
    "list": lambda store: [*store.list("")],
    "replace": lambda store: store.replace("one", [b"2"]),
    "move": lambda store: store.move("one", "two"),
    "delete": lambda store: store.delete("one"),
    "delete_many": lambda store: store.delete_many(["one", "none"]),
}


def content(store: Store) -> dict[str, bytes]:
    return {each.name: store.get(each.name) for each in store.list("")}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_every_call_ends_as_if_nothing_had_failed(call: str, moment: str) -> None:
    expected = MemoryStore()
    expected.put("one", [b"1"])
    returned = CALLS[call](expected)
    flaky, store, pauses = make_well()
    flaky.inner.put("one", [b"1"])
    getattr(flaky, moment).extend(gone(2))
    assert CALLS[call](store) == returned
    assert 1 <= len(pauses.seconds) <= 2
    assert content(flaky.inner) == content(expected)


def test_a_taken_name_is_refused_whatever_failed_before() -> None:
    flaky, store, _ = make_well()
    flaky.inner.put("one", [b"another's"])
    flaky.before += gone()
    with pytest.raises(ObjectExists):
        store.put("one", [b"ours"])
    with pytest.raises(ObjectExists):
        store.put("one", [b"another's"])
    assert flaky.inner.get("one") == b"another's"


def test_pauses_grow_and_the_last_error_says_that_it_was_retried() -> None:
    flaky, store, pauses = make_well(tries=8)
    flaky.before += gone(99)
    with pytest.raises(StoreUnavailable) as caught:
        store.get("one")
    assert caught.value.was_retried
    assert pauses.seconds == [0.25, 0.5, 1, 2, 4, 8, 16]


def test_a_store_that_was_given_up_or_never_answered_is_not_waited_for() -> None:
    flaky, store, pauses = make_well()
    flaky.before += gone(99)
    with pytest.raises(StoreUnavailable):
        store.get("one")
    pauses.seconds.clear()
    with pytest.raises(StoreUnavailable):
        store.get("one")
    assert len(pauses.seconds) == 2
    never, store, pauses = make()
    never.before += gone(99)
    with pytest.raises(StoreUnavailable):
        store.get("one")
    assert len(pauses.seconds) == 2
    assert sum(pauses.seconds) < 1


@pytest.mark.parametrize("error", [PermissionDenied("x", "no"), ObjectNotFound("x"), StoreError("x", "refused")])
def test_what_will_not_pass_is_raised_at_once(error: StoreError) -> None:
    flaky, store, pauses = make_well()
    flaky.before.append(error)
    with pytest.raises(type(error)):
        store.get("one")
    assert not pauses.seconds


def test_a_store_that_asks_for_time_gets_it() -> None:
    flaky, store, pauses = make_well()
    (error,) = flaky.before = gone()
    error.retry_after_s = 7.0
    with pytest.raises(ObjectNotFound):
        store.get("one")
    assert pauses.seconds == [7.0]


def test_a_lost_lock_ends_a_put_at_once() -> None:
    flaky, store, pauses = make_well()

    def confirm() -> None:
        raise LockLost("image 'vm1'")

    with pytest.raises(LockLost):
        store.put("one", [b"1"], confirm)
    assert not pauses.seconds
    assert len(flaky.calls) == 1


def test_many_are_deleted_but_for_those_that_are_refused() -> None:
    class Refusing(MemoryStore):
        def delete(self, name: str) -> None:
            if name == "kept":
                raise PermissionDenied("kept", "is locked")
            super().delete(name)

    flaky = Flaky(Refusing())
    store = RetryingStore(flaky, Backoff(sleep=Pauses()), Backoff(sleep=Pauses()))
    for name in ("kept", "one", "two"):
        flaky.inner.put(name, [b"1"])
    flaky.after += gone(2)
    assert [*store.delete_many(["one", "kept", "two"])] == ["kept"]
    assert [*content(flaky.inner)] == ["kept"]


def test_jitter_spreads_the_pauses() -> None:
    drawn = [Backoff().pause_s(4, None) for _ in range(200)]
    assert all(1 <= pause <= 2 for pause in drawn)
    assert max(drawn) - min(drawn) > 0.5


def test_nothing_is_tried_again_once_the_process_is_to_end() -> None:
    flaky, store, pauses = make_well()
    flaky.before += gone(3)
    pauses.is_ending = True
    with pytest.raises(StoreUnavailable):
        store.get("one")
    assert (flaky.calls, len(pauses.seconds)) == (["get one"], 1)
