# SPDX-License-Identifier: Apache-2.0
"""Metadata of remote stores on this host: what is read from it has the digest in its name, and it takes no more than it may."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from deltaimg.errors import ObjectTooLarge
from deltaimg.format.framing import name_object
from deltaimg.store.cached import CachedStore
from deltaimg.store.counted import CountedStore, TrafficCounter
from deltaimg.store.memory import MemoryStore
from deltaimg.store.metadata_cache import MetadataCache


def make_object(kind: str, size_bytes: int = 100) -> tuple[str, bytes]:
    data = secrets.token_bytes(size_bytes)
    return f"{kind}/{name_object([data])}", data


class Stores:
    """A store in memory, counted, behind a cache."""

    def __init__(self, folder: Path) -> None:
        self.memory = MemoryStore()
        self.counted = CountedStore(self.memory, TrafficCounter())
        self.folder = folder
        self.store = self.reopen()

    def reopen(self) -> CachedStore:
        return CachedStore(self.counted, MetadataCache(str(self.folder)))

    @property
    def reads(self) -> int:
        return sum(self.counted.traffic.requests.get(kind, 0) for kind in ("get", "get_range"))

    @property
    def files(self) -> list[Path]:
        return [each for each in self.folder.rglob("*") if each.is_file()]


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    return Stores(tmp_path / "cache")


@pytest.mark.parametrize("kind", ["index", "maps", "signatures"])
def test_what_was_read_or_written_once_is_not_read_again(stores: Stores, kind: str) -> None:
    name, data = make_object(kind)
    stores.memory.put(name, [data])
    for _ in range(3):
        assert stores.reopen().get(name) == data
        assert stores.store.get_range(name, 3, 9) == data[3:12]
    assert stores.reads == 1
    name, data = make_object(kind)
    stores.store.put(name, [data[:10], memoryview(data)[10:]])
    assert stores.store.get(name, 1000) == data
    assert stores.reads == 1


def test_other_objects_are_never_kept(stores: Stores) -> None:
    names = ["config", "snapshots/vm/a", "locks/vm", "packs/ab/" + "ab" * 32, "index/short", "maps/../" + "ab" * 32]
    for name in names:
        assert not MetadataCache(str(stores.folder)).holds(name)
    stores.store.put("config", [b"1"])
    assert stores.store.get("config") == b"1"
    stores.store.delete_many(["config", "../../x"])
    assert stores.files == []


def test_what_is_damaged_in_the_cache_is_read_from_the_store(stores: Stores) -> None:
    name, data = make_object("maps")
    stores.store.put(name, [data])
    [file] = stores.files
    for damage in (b"", data[:-1], data + b"x", bytes(len(data))):
        file.write_bytes(damage)
        assert stores.store.get(name) == data
        assert file.read_bytes() == data


@pytest.mark.parametrize("max_bytes", [None, 1000])
def test_a_file_that_has_grown_beyond_all_bounds_is_no_error(stores: Stores, max_bytes: int | None) -> None:
    name, data = make_object("maps")
    stores.store.put(name, [data])
    [file] = stores.files
    os.truncate(file, 1 << 42)
    assert stores.store.get(name, max_bytes) == data
    assert file.read_bytes() == data


def test_what_is_no_file_is_not_waited_for(stores: Stores) -> None:
    name, data = make_object("maps")
    stores.store.put(name, [data])
    [file] = stores.files
    file.unlink()
    os.mkfifo(file)
    assert stores.store.get(name) == data


def test_what_is_damaged_in_the_store_is_not_kept(stores: Stores) -> None:
    name, _ = make_object("maps")
    stores.memory.put(name, [b"something else"])
    assert stores.store.get(name) == b"something else", "whoever asked compares it"
    assert stores.files == []


def test_an_object_that_is_too_large_is_refused_as_the_store_refuses_it(stores: Stores) -> None:
    name, data = make_object("index", 500)
    stores.store.put(name, [data])
    with pytest.raises(ObjectTooLarge) as caught:
        stores.store.get(name, 499)
    assert caught.value.size_bytes == 500


def test_what_was_deleted_replaced_or_moved_is_forgotten(stores: Stores) -> None:
    for act in (
        lambda name: stores.store.delete(name),
        lambda name: stores.store.delete_many([name]),
        lambda name: stores.store.move(name, "quarantine/" + name),
        lambda name: stores.store.replace(name, [b"other"]),
    ):
        name, data = make_object("maps")
        stores.store.put(name, [data])
        act(name)
        assert stores.files == []


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    cache = MetadataCache(str(tmp_path), budget_bytes=1000)
    objects = [make_object("maps", 300) for _ in range(4)]
    for age, (name, data) in enumerate(objects):
        cache.add(name, data)
        os.utime(next(tmp_path.rglob(f"*{name[-20:]}")), (0, 10_000 * age))
    assert cache.read(objects[0][0]) == objects[0][1], "used now"
    cache.trim()
    assert [cache.read(name) is not None for name, _ in objects] == [True, False, True, True]
    assert cache.measure() == 900
    large = make_object("maps", 1001)
    cache.add(*large)
    assert cache.read(large[0]) is None
    assert cache.clear() == 900
    assert list((tmp_path).iterdir()) == []


def test_a_folder_that_cannot_be_written_changes_nothing_of_the_result(stores: Stores) -> None:
    stores.folder.write_bytes(b"a file in the way")
    name, data = make_object("maps")
    stores.store.put(name, [data])
    assert stores.store.get(name) == data
    stores.store.close()


def test_two_processes_that_fill_it_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from deltaimg.format.framing import name_object\n"
        "from deltaimg.store.metadata_cache import MetadataCache\n"
        "cache = MetadataCache(sys.argv[1], 3_000_000)\n"
        "for turn in range(400):\n"
        "    data = (b'%d' % (turn % 40)) * 50_000\n"
        "    name = 'maps/' + name_object([data])\n"
        "    found = cache.read(name)\n"
        "    assert found is None or found == data\n"
        "    cache.add(name, data)\n"
        "    if turn % 50 == 49: cache.trim()\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path)]) for _ in range(3)]
    assert [each.wait(60) for each in running] == [0, 0, 0]
    assert not list(tmp_path.rglob(".new-*"))
    assert 0 < MetadataCache(str(tmp_path)).measure() <= 4_500_000
