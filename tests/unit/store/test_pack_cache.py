# SPDX-License-Identifier: Apache-2.0
"""Packs of remote stores on this host: read from it, never wrong, never counted as present, and no more than it may take."""

from __future__ import annotations

import errno
import os
import random
import secrets
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from deltaimg.errors import ObjectNotFound, UsageError
from deltaimg.format.framing import name_object
from deltaimg.format.limits import MAX_PACK_BYTES
from deltaimg.format.pack import pack_name
from deltaimg.options.definition import build
from deltaimg.options.store import StoreOptions
from deltaimg.store.cached_packs import CachedPacksStore, find_cached_packs
from deltaimg.store.compose import compose_store
from deltaimg.store.counted import CountedStore, TrafficCounter
from deltaimg.store.memory import MemoryStore
from deltaimg.store.pack_cache import FREE_SHARE, MOST_BYTES, PIECE_BYTES, PackCache
from deltaimg.store.wrapped import WrappedStore
from tests.support.flips import flip

TABLE_BYTES = 256 << 10


def make_pack(size_bytes: int) -> tuple[str, bytes]:
    data = secrets.token_bytes(size_bytes)
    return pack_name(name_object([data])), data


class Stores:
    """A store in memory, counted, behind a cache of packs."""

    def __init__(self, folder: Path, budget_bytes: int | None = 1 << 30) -> None:
        self.memory = MemoryStore()
        self.counted = CountedStore(self.memory, TrafficCounter())
        self.folder, self.budget_bytes = folder, budget_bytes
        self.store = self.reopen()

    def reopen(self) -> CachedPacksStore:
        return CachedPacksStore(self.counted, PackCache(str(self.folder), self.budget_bytes))

    @property
    def received_bytes(self) -> int:
        return self.counted.traffic.received_bytes

    @property
    def files(self) -> list[Path]:
        return sorted(each for each in self.folder.rglob("*") if not each.is_dir())


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    return Stores(tmp_path / "cache")


SIZES = [1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 5 * PIECE_BYTES + 77, (4 << 20) + 5, 9 << 20]


@pytest.mark.parametrize("size_bytes", SIZES)
def test_a_pack_that_was_put_is_not_read_back(stores: Stores, size_bytes: int) -> None:
    name, data = make_pack(size_bytes)
    stores.store.put(name, [data[: size_bytes // 3], b"", memoryview(data)[size_bytes // 3 :]])
    chance = random.Random(size_bytes)
    for _ in range(20):
        offset = chance.randrange(size_bytes)
        length = chance.randrange(1, size_bytes - offset + 1)
        assert stores.reopen().get_range(name, offset, length) == data[offset : offset + length]
    assert stores.received_bytes == 0


@pytest.mark.parametrize("size_bytes", SIZES)
def test_ranges_that_were_read_are_not_read_again(stores: Stores, size_bytes: int) -> None:
    name, data = make_pack(size_bytes)
    stores.memory.put(name, [data])
    chance, is_kept = random.Random(size_bytes), bytearray(size_bytes)
    for _ in range(40):
        offset = chance.randrange(size_bytes)
        length = chance.randrange(1, min(4 * PIECE_BYTES, size_bytes - offset) + 1)
        before, was_kept = stores.received_bytes, all(is_kept[offset : offset + length])
        assert stores.store.get_range(name, offset, length) == data[offset : offset + length]
        received = stores.received_bytes - before
        assert received < length + 2 * PIECE_BYTES
        assert received == 0 or not was_kept
        is_kept[offset : offset + length] = b"\1" * length
    assert stores.received_bytes <= size_bytes + 40 * 4 * PIECE_BYTES


def test_what_lies_between_kept_pieces_is_all_that_is_read(stores: Stores) -> None:
    name, data = make_pack(10 * PIECE_BYTES + 9)
    stores.memory.put(name, [data])
    for piece in (2, 3, 7, 10):
        stores.store.get_range(name, piece * PIECE_BYTES + 3, 5)
    before = stores.received_bytes
    assert stores.store.get_range(name, 2 * PIECE_BYTES + 1, 9 * PIECE_BYTES) == data[2 * PIECE_BYTES + 1 :]
    assert stores.received_bytes - before == 6 * PIECE_BYTES


def test_a_range_is_short_only_where_the_pack_ends(stores: Stores) -> None:
    name, data = make_pack(2 * PIECE_BYTES + 10)
    stores.store.put(name, [data])
    for offset in (0, PIECE_BYTES, 2 * PIECE_BYTES + 4, len(data), len(data) + 5 * PIECE_BYTES):
        assert stores.store.get_range(name, offset, 1 << 20) == data[offset:]
    assert stores.store.get_range(name, 5, 0) == b""
    assert stores.store.get_range(name, 5, MAX_PACK_BYTES) == data[5:]


def test_nothing_else_is_kept(stores: Stores) -> None:
    digest = "ab" * 32
    for name in ("config", "snapshots/vm/a", f"maps/{digest}", f"packs/cd/{digest}", f"quarantine/packs/ab/{digest}"):
        stores.store.put(name, [b"content"])
        assert stores.store.get_range(name, 0, 7) == b"content"
        stores.store.delete(name)
    stores.store.delete_many(["../../x", "packs/ab/../../x"])
    stores.store.drop_copy("../../x")
    assert stores.files == []


def test_a_pack_that_is_not_in_the_store_is_not_there(stores: Stores) -> None:
    """A prune elsewhere deleted it: listings and whole reads are of the store."""
    name, data = make_pack(50_000)
    stores.store.put(name, [data])
    stores.memory.delete(name)
    assert list(stores.store.list("packs/")) == []
    with pytest.raises(ObjectNotFound):
        stores.store.get(name)
    stores.store.drop_copy(name)
    with pytest.raises(ObjectNotFound):
        stores.store.get_range(name, 0, 10)


def test_what_could_not_be_put_is_not_kept(stores: Stores) -> None:
    name, data = make_pack(50_000)

    def refuse() -> None:
        raise UsageError("not now")

    with pytest.raises(UsageError):
        stores.store.put(name, [data], refuse)
    assert stores.files == []


def test_what_was_deleted_replaced_moved_or_dropped_is_forgotten(stores: Stores) -> None:
    for act in (
        lambda name: stores.store.delete(name),
        lambda name: stores.store.delete_many([name]),
        lambda name: stores.store.move(name, "quarantine/" + name),
        lambda name: stores.store.replace(name, [b"other"]),
        lambda name: WrappedStore(stores.store).drop_copy(name),
    ):
        name, data = make_pack(100_000)
        stores.store.put(name, [data])
        assert len(stores.files) == 1
        act(name)
        assert stores.files == []


def test_what_cannot_be_removed_is_not_read_any_more(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system that is read-only now."""

    def refuse(_path: str) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    name, data = make_pack(100_000)
    stores.memory.put(name, [data])
    PackCache(str(stores.folder)).add(name, [bytes(reversed(data))])
    assert stores.store.get_range(name, 0, 100_000) != data
    monkeypatch.setattr(os, "unlink", refuse)
    stores.store.drop_copy(name)
    assert stores.store.get_range(name, 0, 100_000) == data


def test_files_are_private_whatever_the_umask(stores: Stores) -> None:
    before = os.umask(0)
    try:
        stores.store.put(*_as_put(make_pack(100_000)))
    finally:
        os.umask(before)
    [file] = stores.files
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for folder in (file.parent, file.parent.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_what_is_damaged_is_read_from_the_store(stores: Stores) -> None:
    """One bit, anywhere, and any length that the file is cut to."""
    name, data = make_pack(3 * PIECE_BYTES + 100)
    stores.store.put(name, [data])
    [file] = stores.files
    whole, chance = file.read_bytes(), random.Random(4)
    assert whole[TABLE_BYTES:] == data, "stored bytes, and nothing else"
    places = [0, 15, 16, 63, TABLE_BYTES, TABLE_BYTES + PIECE_BYTES, len(whole) - 1]
    damages = [flip(whole, place, chance.randrange(8)) for place in places + [chance.randrange(64) for _ in range(10)]]
    damages += [
        whole[:size] for size in (0, 1, 40, TABLE_BYTES, TABLE_BYTES + 7, TABLE_BYTES + PIECE_BYTES, len(whole) - 1)
    ]
    damages += [whole + b"more", bytes(len(whole)), secrets.token_bytes(len(whole))]
    for damaged in damages:
        file.write_bytes(damaged)
        before = stores.received_bytes
        assert stores.reopen().get_range(name, 0, len(data)) == data
        assert stores.received_bytes > before
        file.write_bytes(whole)
        assert stores.reopen().get_range(name, 0, len(data)) == data


def test_a_file_of_another_pack_is_none_of_this_one(stores: Stores) -> None:
    (name, data), (other, content) = make_pack(3 * PIECE_BYTES), make_pack(3 * PIECE_BYTES)
    for each, put in ((name, data), (other, content)):
        stores.store.put(each, [put])
    (stores.folder / other).replace(stores.folder / name)
    assert stores.store.get_range(name, 0, len(data)) == data


@pytest.mark.parametrize("kind", ["pipe", "link", "folder", "dangling"])
def test_what_is_no_file_is_not_read_or_followed(stores: Stores, tmp_path: Path, kind: str) -> None:
    name, data = make_pack(50_000)
    stores.memory.put(name, [data])
    victim, place = tmp_path / "victim", stores.folder / name
    victim.write_bytes(b"precious")
    place.parent.mkdir(parents=True)
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    else:
        place.symlink_to(victim if kind == "link" else tmp_path / "elsewhere")
    for _ in range(2):
        assert stores.reopen().get_range(name, 0, len(data)) == data
    assert victim.read_bytes() == b"precious"
    assert not (tmp_path / "elsewhere").exists()


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    stores = Stores(tmp_path, 1_000_000)
    packs = [make_pack(300_000) for _ in range(4)]
    for age, (name, data) in enumerate(packs):
        stores.store.put(name, [data])
        if age < 3:
            os.utime(tmp_path / name, (0, 10_000 * (age + 1)))
        stores = Stores(tmp_path, 1_000_000)  # the next run
        if age == 2:
            PackCache(str(tmp_path)).read(packs[0][0], range(2))
    cache = PackCache(str(tmp_path), 1_000_000)
    assert [bool(cache.read(name, range(1)).missing) for name, _ in packs] == [False, True, False, False]
    assert 900_000 < cache.measure() < 1_000_000


def test_a_run_adds_no_more_than_the_cache_may_take(tmp_path: Path) -> None:
    stores = Stores(tmp_path, 1_000_000)
    for _ in range(8):
        stores.store.put(*_as_put(make_pack(300_000)))
    assert len(stores.files) == 3
    stores.store.close()
    large, data = make_pack(1_000_001)
    later = stores.reopen()
    later.put(large, [data])
    assert len(stores.files) == 3
    later.put(*_as_put(make_pack(300_000)))
    later.close()
    assert PackCache(str(tmp_path)).measure() <= 1_000_000
    assert PackCache(str(tmp_path)).clear() > 800_000
    assert list(tmp_path.iterdir()) == []


def test_by_default_it_takes_a_share_of_what_is_free(tmp_path: Path) -> None:
    cache = PackCache(str(tmp_path))
    name, data = make_pack(50_000)
    cache.add(name, [data])
    found = os.statvfs(tmp_path)
    expected = min(MOST_BYTES, FREE_SHARE * (found.f_bavail * found.f_frsize + cache.measure()))
    assert cache._find_budget() == pytest.approx(expected, rel=0.2)
    assert cache.read(name, range(4)).missing == range(0)


def test_two_runs_that_fill_a_pack_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    """Both put and read parts of the same packs, and trim, and remove them; each compares all that it reads."""
    script = (
        "import sys, random\n"
        "from deltaimg.format.framing import name_object\n"
        "from deltaimg.format.pack import pack_name\n"
        "from deltaimg.store.cached_packs import CachedPacksStore\n"
        "from deltaimg.store.memory import MemoryStore\n"
        "from deltaimg.store.pack_cache import PackCache\n"
        "packs = [random.Random(n).randbytes(700_000 + n) for n in range(6)]\n"
        "names = [pack_name(name_object([each])) for each in packs]\n"
        "memory, chance = MemoryStore(), random.Random(int(sys.argv[2]))\n"
        "for name, each in zip(names, packs): memory.put(name, [each])\n"
        "for run in range(12):\n"
        "    store = CachedPacksStore(memory, PackCache(sys.argv[1], 2_000_000))\n"
        "    for turn in range(60):\n"
        "        n = chance.randrange(6)\n"
        "        start, length = chance.randrange(700_000), chance.randrange(1, 200_000)\n"
        "        assert store.get_range(names[n], start, length) == packs[n][start : start + length]\n"
        "        if turn % 9 == 0: store.drop_copy(names[n])\n"
        "    store.close()\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path), str(seed)]) for seed in range(3)]
    assert [each.wait(120) for each in running] == [0, 0, 0]
    cache = PackCache(str(tmp_path), 2_000_000)
    assert 0 < cache.measure() <= 3 * 2_000_000


def test_only_remote_stores_have_one(tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    local = compose_store(str(tmp_path / "r"), StoreOptions(), writer=lambda: "", cache_folder=cache)
    assert find_cached_packs(local) is None
    for size_bytes, is_cached in ((None, True), (1 << 20, True), (0, False)):
        options = StoreOptions(pack_cache_bytes=size_bytes)
        remote = compose_store("sftp://nobody@host/r", options, writer=lambda: "", cache_folder=cache)
        assert (find_cached_packs(remote) is not None) == is_cached
        remote.close()
    assert find_cached_packs(compose_store("sftp://nobody@host/r", None, writer=lambda: "")) is None


@pytest.mark.parametrize(("text", "size_bytes"), [("none", 0), ("0", 0), ("300M", 300 << 20), ("2.5G", 5 << 29)])
def test_the_option_is_a_size_or_none(text: str, size_bytes: int) -> None:
    assert build(StoreOptions, {"pack_cache_bytes": text}).pack_cache_bytes == size_bytes


@pytest.mark.parametrize("text", ["", "much", "-1", "5%"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        build(StoreOptions, {"pack_cache_bytes": text})


def _as_put(pack: tuple[str, bytes]) -> tuple[str, list[bytes]]:
    return pack[0], [pack[1]]
