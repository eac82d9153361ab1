# SPDX-License-Identifier: Apache-2.0
"""Objects are read before they are asked for, several at once, and errors come from the call that asks."""

from __future__ import annotations

import threading

import pytest
from msgspec.structs import replace

from deltaimg.errors import ObjectNotFound, ObjectTooLarge, StoreUnavailable
from deltaimg.store.interface import StoreProperties
from deltaimg.store.memory import MemoryStore
from deltaimg.store.read_ahead import ReadAheadStore
from deltaimg.store.wrapped import WrappedStore

NAMES = [f"maps/{number:02}" for number in range(50)]
PARALLEL = 4


class FarStore(WrappedStore):
    """A store whose reads wait until `PARALLEL` of them have been begun, or are let go."""

    def __init__(self, inner: MemoryStore) -> None:
        super().__init__(inner)
        self.calls: list[str] = []
        self.failing: set[str] = set()
        self.barrier: threading.Barrier | None = None

    @property
    def properties(self) -> StoreProperties:
        return replace(self.inner.properties, is_remote=True, parallel_requests=PARALLEL)

    def get(self, name: str, max_bytes: int | None = None) -> bytes:
        self.calls.append(name)
        if self.barrier is not None:
            self.barrier.wait(20)
        if name in self.failing:
            self.failing.remove(name)
            raise StoreUnavailable(name, "the line is cut")
        return self.inner.get(name, max_bytes)


@pytest.fixture
def far() -> FarStore:
    inner = MemoryStore()
    for name in NAMES:
        inner.put(name, [name.encode()])
    return FarStore(inner)


def test_reads_are_made_several_at_once_and_each_object_is_read_once(far: FarStore) -> None:
    far.barrier = threading.Barrier(PARALLEL)  # never passed by fewer at once
    store = ReadAheadStore(far)
    names = NAMES[:48]
    with store.reading_ahead(names):
        assert [store.get(name) for name in names] == [name.encode() for name in names]
    store.close()
    assert sorted(far.calls) == names


def test_no_more_is_read_ahead_than_the_window(far: FarStore) -> None:
    store = ReadAheadStore(far)
    with store.reading_ahead(NAMES):
        store.get(NAMES[0])
    store.close()
    assert len(far.calls) <= 2 * PARALLEL + 1


def test_another_order_and_other_objects_are_read_as_ever(far: FarStore) -> None:
    store = ReadAheadStore(far)
    with store.reading_ahead(NAMES[:20]), store.reading_ahead(NAMES[20:30]):
        for name in reversed(NAMES):
            assert store.get(name) == name.encode()
    assert store.get(NAMES[0]) == NAMES[0].encode()
    store.close()


def test_what_fails_ahead_is_read_again_by_the_call_that_asks(far: FarStore) -> None:
    store = ReadAheadStore(far)
    far.failing = set(NAMES[:3])
    with store.reading_ahead(NAMES):
        assert [store.get(name) for name in NAMES] == [name.encode() for name in NAMES]
    far.inner.delete(NAMES[7])
    with store.reading_ahead(NAMES):
        for name in NAMES[:7]:
            store.get(name)
        with pytest.raises(ObjectNotFound):
            store.get(NAMES[7])
    store.close()


def test_a_large_object_is_not_read_ahead(far: FarStore) -> None:
    store = ReadAheadStore(far)
    far.inner.put("maps/large", [bytes(3 << 20)])
    with store.reading_ahead(["maps/large"]):
        assert len(store.get("maps/large")) == 3 << 20
    with store.reading_ahead(NAMES), pytest.raises(ObjectTooLarge):
        store.get(NAMES[0], max_bytes=2)
    store.close()
