# SPDX-License-Identifier: Apache-2.0
"""A store without a byte of room, by a full disk or a quota: what frees room can run, and everything else ends cleanly."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from deltaimg.api.retention import forget, prune
from deltaimg.engine.check.findings import Severity
from deltaimg.engine.check.run import check
from deltaimg.errors import StoreFull
from deltaimg.options.keep import Policy
from deltaimg.options.prune import PruneOptions
from deltaimg.repo.object_kinds import RESERVE_NAME
from deltaimg.repo.repository import Repository
from deltaimg.repo.reserve import RESERVE_BYTES, make_reserve, spending_reserve
from deltaimg.store.file_port import FilePort
from deltaimg.store.local import LocalStore
from deltaimg.store.memory import MemoryStore
from tests.support.images import SyntheticImage, make_incompressible_image
from tests.support.locks import claim_of
from tests.support.repositories import Warnings, assert_restores, back_up_image, make_repository
from tests.support.sync import Family, make_like, run_sync

KEEP_ONE = Policy(last=1)


class Quota(FilePort):
    """A user who may store so many bytes, and no more."""

    def __init__(self, folder: str, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes

    def write(self, descriptor: int, parts: Sequence[bytes | memoryview]) -> None:
        there = sum(os.lstat(os.path.join(at, name)).st_size for at, _, names in os.walk(self.folder) for name in names)
        if there + sum(len(part) for part in parts) > self.max_bytes:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        super().write(descriptor, parts)


def make_history(repository: Repository) -> SyntheticImage:
    """Back up an image three times, all of it rewritten each time, and keep room back."""
    make_reserve(repository)
    for seed in range(3):
        image = make_incompressible_image(2_000_000, seed=seed)
        back_up_image(repository, image)
    return image


def fill(folder: Path) -> None:
    """Write to a disk until there is no room left, to the last byte."""
    with open(folder / "other", "wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))


def test_forget_and_prune_run_on_a_full_disk(make_tmpfs: Callable[[int], Path]) -> None:
    folder = make_tmpfs(16 << 20)
    repository = make_repository(LocalStore(str(folder / "repo")))
    image = make_history(repository)
    fill(folder)
    with pytest.raises(StoreFull):
        back_up_image(repository, make_incompressible_image(100_000, seed=9), "another")
    (forgotten,) = forget(repository, KEEP_ONE)
    assert forgotten.error is None
    assert prune(repository).freed_bytes > 3_900_000
    (ref,) = repository.list_snapshots()
    assert_restores(repository, repository.load_manifest(ref), image.content)
    assert (folder / "repo" / RESERVE_NAME).stat().st_size == RESERVE_BYTES
    back_up_image(repository, make_incompressible_image(100_000, seed=9), "another")


def test_they_run_where_a_quota_is_reached(tmp_path: Path) -> None:
    folder = tmp_path / "repo"
    repository = make_repository(LocalStore(str(folder)))
    make_history(repository)
    used = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    full = Repository(LocalStore(str(folder), Quota(str(folder), used)), repository.config)
    forget(full, KEEP_ONE)
    assert prune(full).freed_bytes > 3_900_000


def test_a_sync_into_a_full_disk_says_so_and_continues_once_there_is_room(make_tmpfs: Callable[[int], Path]) -> None:
    family = Family(make_repository(MemoryStore("first")))
    for seed in range(3):
        family.back_up(make_incompressible_image(2_000_000, seed=seed))
    folder = make_tmpfs(5 << 20)
    destination = make_like(family.source, LocalStore(str(folder / "repo")))
    with pytest.raises(StoreFull) as full:
        run_sync(family.source, destination)
    assert str(folder) in str(full.value)
    assert full.value.hint
    copied = len(destination.list_snapshots())
    assert copied < 3
    family.assert_whole(destination, copied)
    subprocess.run(["mount", "-o", "remount,size=32m", folder], check=True)
    assert len(run_sync(family.source, destination).copied) == 3 - copied
    family.assert_whole(destination, 3)


def test_a_backup_that_a_quota_ends_leaves_packs_that_the_next_one_uses(tmp_path: Path) -> None:
    """They were found by nobody, so that each try stored them again, beside those of the one before."""
    folder = tmp_path / "repo"
    repository = make_repository(LocalStore(str(folder)))
    image = make_incompressible_image(80 << 20, seed=4)
    quota = Quota(str(folder), 70 << 20)
    full = Repository(LocalStore(str(folder), quota), repository.config)
    with pytest.raises(StoreFull):
        back_up_image(full, image)
    quota.max_bytes = 90 << 20
    manifest = back_up_image(full, image)
    assert manifest.statistics.stored_bytes < 20 << 20
    assert_restores(repository, manifest, image.content)


def test_no_other_verb_takes_the_reserve(make_tmpfs: Callable[[int], Path]) -> None:
    folder = make_tmpfs(16 << 20)
    repository = make_repository(LocalStore(str(folder / "repo")))
    make_history(repository)
    fill(folder)
    for _ in range(3):
        with pytest.raises(StoreFull):
            back_up_image(repository, make_incompressible_image(10_000, seed=9), "another")
    assert (folder / "repo" / RESERVE_NAME).stat().st_size == RESERVE_BYTES


def test_the_reserve_is_as_large_as_there_is_room_for(make_tmpfs: Callable[[int], Path]) -> None:
    folder = make_tmpfs(1 << 20)
    repository = make_repository(LocalStore(str(folder / "repo")))
    make_reserve(repository)
    small = (folder / "repo" / RESERVE_NAME).stat().st_size
    assert RESERVE_BYTES // 4 <= small < RESERVE_BYTES
    shutil.copytree(folder / "repo", folder.with_name("larger"))
    larger = Repository(LocalStore(str(folder.with_name("larger"))), repository.config)
    make_reserve(larger)
    assert (folder.with_name("larger") / RESERVE_NAME).stat().st_size == RESERVE_BYTES


def test_the_reserve_is_given_up_once_and_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "repo"
    repository = make_repository(LocalStore(str(folder)))
    make_reserve(repository)
    quota = Quota(str(folder), RESERVE_BYTES + 1000)
    full = Repository(LocalStore(str(folder), quota), repository.config)
    with pytest.raises(StoreFull):
        full.objects.put_bytes("verified", [bytes(2000)])
    with spending_reserve(full):
        full.objects.put_bytes("verified", [bytes(2000)])
        assert not (folder / RESERVE_NAME).exists()
        full.objects.replace_bytes("verified", [bytes(1_047_000)])
        with pytest.raises(StoreFull):
            full.objects.put_bytes(claim_of("vm1"), [bytes(4000)])
        full.objects.replace_bytes("verified", [bytes(1000)])
    assert (folder / RESERVE_NAME).stat().st_size == RESERVE_BYTES // 2  # the whole would pass the quota
    quota.max_bytes *= 2
    make_reserve(full)
    assert (folder / RESERVE_NAME).stat().st_size == RESERVE_BYTES


def make_worn_history(repository: Repository) -> SyntheticImage:
    """Back up an image five times, most of it rewritten each time, so that packs are needed in part; keep room back."""
    make_reserve(repository)
    image = make_incompressible_image(1_200_000, seed=0)
    chance = random.Random(5)
    for _ in range(5):
        back_up_image(repository, image)
        image.content[:900_000] = chance.randbytes(900_000)
        for _ in range(20):
            start = chance.randrange(0, 1_150_000)
            image.content[start : start + 4096] = chance.randbytes(4096)
    back_up_image(repository, image)
    return image


def count_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("has_reserve", [True, False])
@pytest.mark.parametrize("free_bytes", [0, 2_000, 64 << 10, 400_000])
def test_prune_frees_what_it_can_in_the_room_that_there_is(tmp_path: Path, free_bytes: int, has_reserve: bool) -> None:
    """With 64 KiB it said "make room" and freed nothing."""
    folder = tmp_path / "repo"
    repository = make_repository(LocalStore(str(folder)))
    image = make_worn_history(repository)
    forget(repository, KEEP_ONE)
    if not has_reserve:
        (folder / RESERVE_NAME).unlink()
    before = count_bytes(folder)
    full = Repository(LocalStore(str(folder), Quota(str(folder), before + free_bytes)), repository.config)
    heard = Warnings()
    try:
        result = prune(full, PruneOptions(max_unused_percent=0), progress=heard)
    except StoreFull:
        assert not has_reserve
        assert free_bytes < 64 << 10
    else:
        assert result.freed_bytes > 2 * result.written_bytes > 0 or not has_reserve
        assert any("the store is full" in each for each in heard.messages) or free_bytes > 64 << 10
    (ref,) = repository.list_snapshots()
    assert_restores(repository, repository.load_manifest(ref), image.content)
    assert not check(repository, read_packs=True).of(Severity.ERROR)
    prune(repository, PruneOptions(max_unused_percent=0))
    assert count_bytes(folder) < 1_400_000 + RESERVE_BYTES
    assert_restores(repository, repository.load_manifest(ref), image.content)
