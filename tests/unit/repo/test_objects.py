# SPDX-License-Identifier: Apache-2.0
"""The one way of objects into and out of a store, and the checks on it; nothing in the engine goes another way."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

import deltaimg.engine
from deltaimg.arrays import HOLE, uniform_runs
from deltaimg.errors import DigestMismatch, IntegrityError, Malformed, ObjectNotFound, ObjectTooLarge
from deltaimg.format.deletion import DeletionLocks
from deltaimg.format.map import MapObject
from deltaimg.format.verified import VerifiedObject
from deltaimg.repo.keys import digest_of, find_kind
from deltaimg.repo.object_kinds import DELETION_LOCKS, MANIFEST, MAP, PACK, VERIFIED, VERIFIED_NAME
from deltaimg.repo.objects import Objects
from deltaimg.store.memory import MemoryStore

LOCKS = DeletionLocks(id="0123456789abcdef", waits_for=("0" * 16,))
MAP_OBJECT = MapObject(7, np.empty((0, 16), np.uint8), np.empty(0, np.uint16), uniform_runs(0, 7, HOLE))


class FlippingStore(MemoryStore):
    """Returns a flipped byte from the first `flips` reads, as a bad cable does."""

    def __init__(self, flips: int) -> None:
        super().__init__()
        self.flips, self.reads = flips, 0

    def get(self, name: str, max_bytes: int | None = None) -> bytes:
        self.reads += 1
        data = super().get(name, max_bytes)
        return data[:-1] + bytes([data[-1] ^ self.reads]) if self.reads <= self.flips else data


def test_what_is_put_is_what_one_gets() -> None:
    objects = Objects(MemoryStore())
    digest, size_bytes = objects.put_new(MAP, MAP_OBJECT)
    assert MAP.build(objects.get(MAP, MAP.name_of(digest)))[64:] == MAP.build(MAP_OBJECT)[64:]
    assert [(each.name, each.size_bytes) for each in objects.list("maps/")] == [(MAP.name_of(digest), size_bytes)]
    objects.put(DELETION_LOCKS, LOCKS.object_name, LOCKS)
    assert objects.get(DELETION_LOCKS, LOCKS.object_name) == LOCKS
    objects.delete(LOCKS.object_name)
    with pytest.raises(ObjectNotFound):
        objects.get(DELETION_LOCKS, LOCKS.object_name)


@pytest.mark.parametrize("flips", [1, 2])
@pytest.mark.parametrize("is_by_digest", [True, False])
def test_what_reads_as_damaged_is_read_once_more(flips: int, is_by_digest: bool) -> None:
    store = FlippingStore(flips)
    objects = Objects(store)
    if is_by_digest:
        name = MAP.name_of(objects.put_new(MAP, MAP_OBJECT)[0])
    else:
        objects.put(DELETION_LOCKS, name := LOCKS.object_name, LOCKS)
    kind = MAP if is_by_digest else DELETION_LOCKS
    if flips == 1:
        objects.get(kind, name)  # type: ignore[arg-type]
    else:
        with pytest.raises(IntegrityError):
            objects.get(kind, name)  # type: ignore[arg-type]
    assert store.reads == 2


def test_an_object_under_the_digest_of_another_is_refused() -> None:
    store = MemoryStore()
    objects = Objects(store)
    first, second = (MAP.name_of(objects.put_new(MAP, MAP_OBJECT)[0]) for _ in range(2))
    store.objects[first] = store.objects[second]
    for read in (lambda: objects.get(MAP, first), lambda: objects.get_verified(first)):
        with pytest.raises(DigestMismatch) as caught:
            read()
        assert caught.value.expected.hex() == digest_of(first)


def test_an_object_of_another_kind_is_refused() -> None:
    objects = Objects(MemoryStore())
    objects.put(DELETION_LOCKS, LOCKS.object_name, LOCKS)
    with pytest.raises(Malformed):
        objects.get(VERIFIED, LOCKS.object_name)


@pytest.mark.parametrize("name", ["notes.txt", "maps/../config", "packs/ab", ""])
def test_nothing_is_read_under_a_name_that_no_object_has(name: str) -> None:
    store = FlippingStore(0)
    store.objects[name] = b"x"
    objects = Objects(store)
    for read in (objects.get_bytes, objects.get_verified, lambda name: objects.get_range(name, 0, 1)):
        with pytest.raises(Malformed):
            read(name)
    assert store.reads == 0


def test_what_no_reader_would_read_is_not_written() -> None:
    store = MemoryStore()
    with pytest.raises(ObjectTooLarge):
        Objects(store).put_bytes(LOCKS.object_name, [bytes(DELETION_LOCKS.max_bytes + 1)])
    assert not store.objects


def test_what_does_not_parse_is_not_written() -> None:
    store = MemoryStore()
    known = VerifiedObject(np.arange(64, dtype=np.uint8).reshape(2, 32), np.arange(2, dtype=np.uint64))
    cut = replace(VERIFIED, build=lambda content: VERIFIED.build(content)[:-1])
    with pytest.raises(IntegrityError):
        Objects(store).replace(cut, VERIFIED_NAME, known)
    assert not store.objects


def test_a_kind_finds_its_own_names() -> None:
    digest = "ab" * 32
    for kind in (MAP, PACK):
        assert find_kind(kind.name_of(digest)) is kind
        assert digest_of(kind.name_of(digest)) == digest
    assert find_kind("snapshots/vm1/20261123T020304.000005Z-0123456789abcdef") is MANIFEST


def test_nothing_in_the_engine_names_a_store() -> None:
    found = [
        f"{path.name}: {line.strip()}"
        for path in Path(str(deltaimg.engine.__file__)).parent.rglob("*.py")
        for line in path.read_text().splitlines()
        if re.search(r"\.store\b(?!\()|deltaimg\.store|\b\w*Store\(|: Store\b", line)
    ]
    assert not found
