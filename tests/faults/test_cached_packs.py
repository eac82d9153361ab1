# SPDX-License-Identifier: Apache-2.0
"""The cache of packs when its disk fails, its process dies, or its files are forged: what the store has is what counts."""

from __future__ import annotations

import errno
import logging
import os
import random
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from deltaimg import large_files
from deltaimg.engine.check.findings import Severity
from deltaimg.engine.check.run import check
from deltaimg.engine.prune.run import prune
from deltaimg.engine.retention.flatten import flatten
from deltaimg.errors import ContentDamaged
from deltaimg.format.framing import digest_bytes, name_object
from deltaimg.format.pack import PACKS, pack_name
from deltaimg.format.record import (
    RECORD_HEADER_BYTES,
    RecordHeader,
    build_record_header,
    parse_record_header,
)
from deltaimg.options.prune import PruneOptions
from deltaimg.repo.objects import Objects
from deltaimg.repo.pack_reader import load_footer
from deltaimg.repo.repository import SnapshotRef
from deltaimg.store import cache_files, pack_cache
from deltaimg.store.cached_packs import CachedPacksStore
from deltaimg.store.interface import Store
from deltaimg.store.memory import MemoryStore
from deltaimg.store.pack_cache import PIECE_BYTES, PackCache
from tests.support.clock import FixedClock
from tests.support.images import SyntheticImage, make_incompressible_image
from tests.support.repositories import KEY, Warnings, assert_restores, back_up_image, make_repository, reopen
from tests.support.sync import assert_sound, make_like, run_sync
from tests.support.wrapping import WatchedStore

BUDGET_BYTES = 40 << 20
LARGE_BYTES = (4 << 20) + 12345


class FailingCalls:
    """The module `os`, of which one call fails: a write after half of its bytes, another at once."""

    def __init__(self, fail_at: int | None, error_number: int) -> None:
        self._fail_at, self._error_number = fail_at, error_number
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(os, name)
        if name not in _CALLS:
            return found

        def call(*arguments: Any, **options: Any) -> Any:
            self.calls.append(name)
            if len(self.calls) - 1 == self._fail_at:
                if name == "close":
                    found(*arguments)
                if name in ("pwrite", "write"):
                    descriptor, data, *place = arguments
                    found(descriptor, data[: len(data) // 2], *place)
                raise OSError(self._error_number, os.strerror(self._error_number))
            return found(*arguments, **options)

        return call


_CALLS = {
    *(
        "open",
        "close",
        "fstat",
        "lseek",
        "makedirs",
        "pread",
        "pwrite",
        "scandir",
        "statvfs",
        "unlink",
        "utime",
        "write",
    ),
}


@lru_cache
def make_pack(size_bytes: int, seed: int) -> tuple[str, bytes]:
    data = random.Random(seed).randbytes(size_bytes)
    return pack_name(name_object([data])), data


def use_cache(folder: Path, budget_bytes: int | None = BUDGET_BYTES) -> None:
    """Put packs and read ranges, all of which must be right; one pack is large, one is read twice, and one deleted."""
    memory = MemoryStore()
    store = CachedPacksStore(memory, PackCache(str(folder), budget_bytes))
    packs = [make_pack(size_bytes, seed) for seed, size_bytes in enumerate((LARGE_BYTES, 100_000, 3 * PIECE_BYTES))]
    store.put(packs[0][0], [packs[0][1][:1000], memoryview(packs[0][1])[1000:]])
    store.put(packs[1][0], [packs[1][1]])
    memory.put(packs[2][0], [packs[2][1]])
    for name, data in (*packs, *packs):
        for offset, length in ((5, 20_000), (0, len(data)), (len(data) - 9, 100)):
            assert store.get_range(name, offset, length) == data[offset : offset + length]
    store.delete(packs[1][0])
    store.close()


def check_cache(folder: Path) -> None:
    """What another process finds in the folder is right, or is not there; all is usable."""
    use_cache(folder)
    assert PackCache(str(folder)).measure() <= 3 * LARGE_BYTES


@pytest.mark.parametrize("error_number", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_each_call_of_the_disk_that_fails_costs_bytes_and_never_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error_number: int
) -> None:
    count, number, warned = 1, 0, 0
    while number < count:
        folder = tmp_path / str(number)
        failing = FailingCalls(number, error_number)
        with monkeypatch.context() as patch:
            patch.setattr(pack_cache, "os", failing)
            patch.setattr(cache_files, "os", failing)
            patch.setattr(large_files, "os", failing)
            caplog.clear()
            use_cache(folder, None if number % 2 else BUDGET_BYTES)
        said = [each for each in caplog.records if each.levelno >= logging.WARNING]
        assert len(said) <= 1
        warned += len(said)
        assert all(os.strerror(error_number) in each.getMessage() for each in said)
        check_cache(folder)
        shutil.rmtree(folder)
        count, number = max(count, len(failing.calls)), number + 1
    assert count > 40
    assert warned >= 8, "writes that fail are reported"


def test_a_full_disk_is_one_warning_and_nothing_is_added_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_descriptor: int, _data: bytes, _offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", refuse)
    for _ in range(2):
        caplog.clear()
        use_cache(tmp_path)
        [said] = caplog.records
        assert "No space left on device" in said.getMessage()
    assert [each for each in tmp_path.rglob("*") if each.is_file()] == []


@pytest.mark.parametrize("is_after", [False, True])
def test_a_process_that_dies_at_any_step_leaves_nothing_wrong(tmp_path: Path, is_after: bool) -> None:
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from deltaimg import large_files\n"
        "from deltaimg.store import cache_files, pack_cache\n"
        "from tests.faults.test_cached_packs import DyingCalls, use_cache\n"
        "pack_cache.os = cache_files.os = large_files.os = DyingCalls(int(sys.argv[2]), bool(int(sys.argv[3])))\n"
        "use_cache(Path(sys.argv[1]))\n"
    )
    codes = []
    for number in (2, 4, 5, 6, 7, 8, 9, 11, 14, 20, 1000):
        folder = tmp_path / str(number)
        arguments = [sys.executable, "-c", script, str(folder), str(number), str(int(is_after))]
        codes.append(subprocess.run(arguments, check=False, timeout=60).returncode)
        check_cache(folder)
    assert codes == [9] * (len(codes) - 1) + [0]


class DyingCalls(FailingCalls):
    """The module `os`, at one call of which the process ends, before or after half of what it does."""

    def __init__(self, fail_at: int, is_after: bool) -> None:
        super().__init__(None, 0)
        self._die_at, self._is_after = fail_at, is_after

    def __getattr__(self, name: str) -> Any:
        found = super().__getattr__(name)
        if name not in _CALLS:
            return found

        def call(*arguments: Any, **options: Any) -> Any:
            if len(self.calls) == self._die_at:
                if self._is_after and name in ("pwrite", "write"):
                    descriptor, data, *place = arguments
                    found(descriptor, data[: len(data) // 2], *place)
                elif self._is_after:
                    found(*arguments, **options)
                os._exit(9)
            return found(*arguments, **options)

        return call


# -- forged files: right digests of wrong bytes -------------------------------------------------------------


class Host:
    """A repository in memory, as a host sees it behind its cache, with two snapshots of an image, and what they hold."""

    def __init__(self, folder: Path, *, is_encrypted: bool, pages: int = 120) -> None:
        self.pages = pages
        self.memory, self.folder = MemoryStore("first"), folder
        self.watched = WatchedStore(self.memory)
        self.plain = make_repository(self.memory, KEY if is_encrypted else None)
        self.repository = reopen(self.plain, self.open_store())
        self.clock, self.image = FixedClock(), make_incompressible_image(3 << 20, seed=8)
        self.taken = [self.back_up(), self.back_up()]

    def open_store(self) -> Store:
        return CachedPacksStore(self.watched, PackCache(str(self.folder), BUDGET_BYTES))

    def back_up(self, **more: object) -> tuple[Any, bytes]:
        """Back up the image, and change some of it."""
        self.clock.advance(days=1)
        warnings = Warnings()
        options = {"clock": self.clock, "progress": warnings, "cache_folder": str(self.folder), **more}
        manifest = back_up_image(self.repository, self.image, **options)  # type: ignore[arg-type]
        assert not warnings.messages
        state = bytes(self.image.content)
        change_pages(self.image, self.clock.now.day, self.pages)
        return manifest, state

    def poison(self, forge: Callable[[bytes, str], bytes]) -> None:
        """Put, in place of all packs in the cache, what `forge` makes of their bytes and names."""
        cache = PackCache(str(self.folder), BUDGET_BYTES)
        for name in [each.name for each in self.memory.list(PACKS)]:
            cache.add(name, [forge(self.memory.get(name), name)])

    @property
    def reads(self) -> int:
        """How many times packs were read from the store."""
        return sum(call.startswith("get_range packs/") for call in self.watched.calls)

    def assert_whole(self) -> None:
        """All snapshots restore from the store alone, which has no damage."""
        for manifest, state in self.taken:
            assert_restores(self.plain, manifest, state)
        assert_sound(self.plain)


def change_pages(image: SyntheticImage, seed: int, pages: int) -> None:
    """Change some bytes in many pages: a page is stored as a delta against what it was, which the image has no more."""
    chance = random.Random(seed)
    for page in chance.sample(range(image.size_bytes // 4096), pages):
        image.write(page * 4096 + chance.randrange(4000), chance.randbytes(20))


def junk(data: bytes, _name: str) -> bytes:
    return secrets.token_bytes(len(data))


def truncated(data: bytes, _name: str) -> bytes:
    return data[: len(data) // 2]


def empty(_data: bytes, _name: str) -> bytes:
    return b"\0"


def other_content(data: bytes, name: str) -> bytes:
    """The same records by their headers, with payloads that are turned by 100 bytes, whose digests are right."""
    memory, forged = MemoryStore(), bytearray(data)
    memory.put(name, [data])
    footer = load_footer(Objects(memory), name, len(data))
    for offset in footer["offset"].tolist():
        header = parse_record_header(name, offset, data[offset:])
        start = offset + RECORD_HEADER_BYTES
        payload = data[start + 100 : start + header.payload_bytes] + data[start : start + 100]
        changed = RecordHeader(
            **{each: getattr(header, each) for each in RecordHeader.__slots__}
            | {"payload_digest": digest_bytes(payload, length=len(header.payload_digest))}
        )
        forged[offset:start], forged[start : start + len(payload)] = build_record_header(changed), payload
    return bytes(forged)


@pytest.fixture(params=[False, True], ids=["plain", "encrypted"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Host:
    return Host(tmp_path / "cache", is_encrypted=request.param)


@pytest.mark.parametrize("forge", [junk, truncated, empty, other_content])
def test_whoever_made_the_files_of_the_cache_changes_no_result(
    host: Host, forge: Callable[[bytes, str], bytes]
) -> None:
    for act in (
        lambda: [assert_restores(host.repository, *each) for each in host.taken],
        lambda: host.taken.append(host.back_up()),
        lambda: flatten(host.repository, SnapshotRef.of(host.taken[-1][0]), clock=host.clock, workers=2),
        lambda: prune(host.repository, PruneOptions(max_unused_percent=0.0), clock=host.clock),
        lambda: run_sync(host.repository, make_like(host.plain)),
    ):
        host.poison(forge)
        act()
        host.assert_whole()


def test_a_backup_verifies_what_it_encodes_against_though_its_digests_are_not_loaded(tmp_path: Path) -> None:
    """At the bound of depth, what the base's records are encoded against. With other content the snapshot would be lost."""
    host = Host(tmp_path, is_encrypted=False, pages=768)
    host.poison(other_content)
    host.taken.append(host.back_up(match_budget_bytes=1, max_depth=1))
    assert host.taken[-1][0].statistics.stored_bytes < len(host.image.content) / 4, "the store's bytes were used"
    host.assert_whole()


def test_a_damaged_copy_is_dropped_and_the_next_one_kept(host: Host) -> None:
    host.poison(junk)
    reads = [host.reads]
    for _ in range(3):
        assert_restores(host.repository, *host.taken[0])
        reads.append(host.reads)
    assert reads[0] < reads[1]
    # A thread may drop what another one has just read again; from then on nothing is damaged.
    assert reads[2] == reads[3]


def test_the_next_backup_reads_no_pack_back(host: Host) -> None:
    """As long as the cache is whole; without it the old content of changed pages is read from the store."""
    before = host.reads
    host.taken.append(host.back_up())
    assert host.reads == before
    PackCache(str(host.folder)).clear()
    host.taken.append(host.back_up())
    assert host.reads > before
    host.assert_whole()


def test_damage_in_the_store_is_found_whatever_the_cache_has(host: Host) -> None:
    name = max(each.name for each in host.memory.list(PACKS))
    host.memory.replace(name, [bytes(100_000)])
    assert check(host.plain, read_packs=True).of(Severity.ERROR)
    assert_restores(host.repository, *host.taken[0])


def test_what_was_damaged_in_the_store_when_it_was_read_heals_once_it_is_repaired(host: Host) -> None:
    PackCache(str(host.folder)).clear()
    whole = {each.name: host.memory.get(each.name) for each in host.memory.list(PACKS)}
    for name, data in whole.items():
        host.memory.replace(name, [data[:70] + secrets.token_bytes(len(data) - 70)])
    with pytest.raises(ContentDamaged):
        assert_restores(host.repository, *host.taken[0])
    for name, data in whole.items():
        host.memory.replace(name, [data])
    assert_restores(host.repository, *host.taken[0])
