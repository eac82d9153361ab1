# SPDX-License-Identifier: Apache-2.0
"""Free bytes of btrfs beside its own tools: what is taken as free is free for them."""

from __future__ import annotations

import os
import random
import re
import shutil
import struct
from pathlib import Path

import pytest

from deltaimg.api.backup import backup
from deltaimg.engine.restore.run import restore
from deltaimg.guest.btrfs_free import find_free
from deltaimg.guest.crc32c import find_sum
from deltaimg.guest.free_blocks import FreeBlocks
from deltaimg.guest.window import NOT_RECOGNISED
from deltaimg.model import KIB, MIB
from deltaimg.options.backup import BackupOptions
from tests.interop.test_guest_free_space_of_others import fill, mounted
from tests.support.guest_images import free_blocks, overwrite, read_tree, run
from tests.support.repositories import make_repository

KINDS: dict[str, list[object]] = {
    "by default": [],
    "of one kind of chunk": ["--mixed"],
    "with two copies of data": ["-d", "dup", "-m", "dup"],
    "with one copy of metadata": ["-m", "single", "-n", "4096"],
    "of large nodes": ["-n", "65536"],
    "without a tree of free space": ["-R", "^free-space-tree", "-O", "^no-holes"],
}
SIZE_BYTES = 272 * MIB
UNIT = 4 * KIB


def make(path: Path, *options: object, is_filled: bool = True) -> Path:
    with open(path, "wb") as file:
        file.truncate(SIZE_BYTES)
    run("mkfs.btrfs", "-q", *options, path)
    if is_filled:
        with mounted(path, path.with_name("filling")) as folder:
            (folder / "small").write_bytes(b"in the tree")
            fill(folder)
            (folder / "packed").mkdir()
            run("btrfs", "property", "set", folder / "packed", "compression", "zstd")
            (folder / "packed" / "text").write_bytes(b"compressed " * 100_000)
            run("btrfs", "subvolume", "snapshot", folder, folder / "before")
            for number in range(1, 300, 5):
                (folder / f"f{number}").unlink(missing_ok=True)
    return path


def list_used(path: Path) -> tuple[set[int], dict[int, tuple[int, int]]]:
    """Return the units of the device that btrfs says are used, and by the stripes of chunks where each lies."""
    chunks = {}
    dumped = run("btrfs", "inspect-internal", "dump-tree", "-t", "chunk", path)
    for item in re.split(r"\titem \d+ key ", dumped)[1:]:
        if found := re.match(r"\(FIRST_CHUNK_TREE CHUNK_ITEM (\d+)\)", item):
            length = int(re.findall(r"length (\d+) owner", item)[0])
            for place in re.findall(r"stripe \d+ devid 1 offset (\d+)", item):
                chunks[int(place)] = int(found[1]), length
    node_bytes = int(
        re.findall(r"^nodesize\s+(\d+)$", run("btrfs", "inspect-internal", "dump-super", path), re.MULTILINE)[0]
    )
    dumped = run("btrfs", "inspect-internal", "dump-tree", "-t", "extent", path)
    used = set()
    for start, kind, length in re.findall(r"key \((\d+) (EXTENT_ITEM|METADATA_ITEM) (\d+)\)", dumped):
        end = int(start) + (int(length) if kind == "EXTENT_ITEM" else node_bytes)
        for place, (first, size) in chunks.items():
            if first <= int(start) < first + size:
                used |= set(range((place + int(start) - first) // UNIT, (place + end - first) // UNIT))
    return used, chunks


@pytest.mark.parametrize("kind", KINDS)
def test_free_bytes_are_those_that_the_extent_tree_does_not_list(tmp_path: Path, kind: str) -> None:
    image = make(tmp_path / "image", *KINDS[kind])
    found, (used, _) = free_blocks(image, find_free), list_used(image)
    assert isinstance(found, FreeBlocks)
    assert found.kept_groups == 0
    free = {unit for start, end in found.bounds.tolist() for unit in range(start // UNIT, end // UNIT)}
    assert not free & used
    kept = set(range(SIZE_BYTES // UNIT)) - free - used
    # The first MiB, and two copies of the superblock.
    assert kept <= set(range(MIB // UNIT)) | set(range(64 * MIB // UNIT, 64 * MIB // UNIT + 16))
    assert len(free) > SIZE_BYTES // UNIT // 4


@pytest.mark.parametrize("kind", KINDS)
def test_what_btrfs_has_free_may_hold_anything(tmp_path: Path, kind: str) -> None:
    image = make(tmp_path / "image", *KINDS[kind])
    with mounted(image, tmp_path / "mnt", "ro") as folder:
        before = read_tree(folder)
    found = free_blocks(image, find_free)
    assert isinstance(found, FreeBlocks)
    overwrite(image, found)
    run("btrfs", "check", "--check-data-csum", image)
    with mounted(image, tmp_path / "mnt") as folder:
        assert read_tree(folder) == before
        run("btrfs", "scrub", "start", "-B", folder)
        fill(folder)
    run("btrfs", "check", image)


def test_a_backup_leaves_it_out_and_what_restored_is_complete(tmp_path: Path) -> None:
    image, restored = make(tmp_path / "image"), tmp_path / "restored"
    with mounted(image, tmp_path / "mnt", "ro") as folder:
        before = read_tree(folder)
    found = free_blocks(image, find_free)
    assert isinstance(found, FreeBlocks)
    overwrite(image, found)
    repository = make_repository()
    manifest = backup(repository, str(image), "vm1", BackupOptions(free_space="skip", workers=2))
    assert manifest.free_space is not None
    assert manifest.free_space.skipped_bytes >= SIZE_BYTES // 4
    assert manifest.statistics.stored_bytes < SIZE_BYTES // 4
    restore(repository, manifest, str(restored))
    run("btrfs", "check", "--check-data-csum", restored)
    with mounted(restored, tmp_path / "mnt") as folder:
        assert read_tree(folder) == before
        fill(folder)
    run("btrfs", "check", restored)


def test_one_that_is_in_use_is_as_its_last_commit_left_it(tmp_path: Path) -> None:
    image, copy = make(tmp_path / "image"), tmp_path / "copy"
    with mounted(image, tmp_path / "mnt") as folder:
        (folder / "later").write_bytes(os.urandom(3 * MIB))
        os.sync()
        before = read_tree(folder)
        shutil.copyfile(image, copy)
        found = free_blocks(copy, find_free)
        assert isinstance(found, FreeBlocks)
    overwrite(copy, found)
    run("btrfs", "check", copy)
    with mounted(copy, tmp_path / "mnt") as folder:
        assert read_tree(folder) == before


def test_one_whose_log_must_be_replayed_is_kept(tmp_path: Path) -> None:
    image, copy = make(tmp_path / "image", is_filled=False), tmp_path / "copy"
    with mounted(image, tmp_path / "mnt") as folder, open(folder / "logged", "wb") as file:
        file.write(os.urandom(MIB))
        os.fsync(file.fileno())
        file.write(b"more")
        os.fsync(file.fileno())
        shutil.copyfile(image, copy)
    assert free_blocks(copy, find_free) == "its log must be replayed"


def test_others_are_kept(tmp_path: Path) -> None:
    assert free_blocks(make(tmp_path / "a", "--csum", "xxhash", is_filled=False), find_free) == (
        "its checksums are of a kind that is not known here"
    )
    first, second = tmp_path / "b", tmp_path / "c"
    for path in (first, second):
        with open(path, "wb") as file:
            file.truncate(SIZE_BYTES)
    run("mkfs.btrfs", "-q", "-d", "raid1", "-m", "raid1", first, second)
    assert free_blocks(first, find_free) == "it is on several devices"


def revise_superblock(image: Path, offset: int, layout: str, value: int) -> None:
    with open(image, "r+b") as file:
        file.seek(64 * KIB)
        raw = bytearray(file.read(4096))
        struct.pack_into(layout, raw, offset, value)
        struct.pack_into("<I", raw, 0, ~find_sum(bytes(raw[32:])) & 0xFFFFFFFF)
        file.seek(64 * KIB)
        file.write(raw)


@pytest.mark.parametrize(
    ("offset", "value", "problem"),
    [
        (188, 0x1000, "it has features that are not known here"),
        (188, 0x80, "it has features that are not known here"),
        (180, 0x10, "it has features that are not known here"),
        (56, 1 << 32, "it has features that are not known here"),
        (96, 30408704, "its log must be replayed"),
        (136, 2, "it is on several devices"),
    ],
)
def test_a_superblock_that_says_more_than_is_known_keeps_everything(
    tmp_path: Path, offset: int, value: int, problem: str
) -> None:
    image = make(tmp_path / "image", is_filled=False)
    assert isinstance(free_blocks(image, find_free), FreeBlocks)
    with open(image, "rb") as file:
        file.seek(64 * KIB + offset)
        present = int.from_bytes(file.read(8), "little")
    revise_superblock(image, offset, "<Q", present | value if offset != 136 else value)
    assert free_blocks(image, find_free) == problem
    revise_superblock(image, offset, "<Q", present)
    assert isinstance(free_blocks(image, find_free), FreeBlocks)


@pytest.mark.parametrize("options", [("-d", "raid0", "-m", "single"), ("-d", "single", "-m", "raid0")])
def test_a_chunk_that_is_a_raid_keeps_everything(tmp_path: Path, options: tuple[str, ...]) -> None:
    assert free_blocks(make(tmp_path / "image", *options, is_filled=False), find_free) == "it is a RAID"


def test_damage_keeps_everything_or_leaves_the_answer_as_it_was(tmp_path: Path, seed: int) -> None:
    image, chance = make(tmp_path / "image", "-m", "single"), random.Random(seed)
    right = free_blocks(image, find_free)
    assert isinstance(right, FreeBlocks)
    used = sorted(list_used(image)[0])
    outcomes = {"kept": 0, "same": 0}
    for _ in range(40):
        place = (
            chance.choice(used) * UNIT + chance.randrange(UNIT)
            if chance.random() < 0.7
            else 64 * KIB + chance.randrange(4096)
        )
        with open(image, "r+b") as file:
            file.seek(place)
            before = file.read(1)
            file.seek(place)
            file.write(bytes([before[0] ^ (1 << chance.randrange(8))]))
        try:
            found = free_blocks(image, find_free)
        except NOT_RECOGNISED:
            found = "not recognised"
        if isinstance(found, FreeBlocks):
            assert found.bounds.tolist() == right.bounds.tolist()
        outcomes["same" if isinstance(found, FreeBlocks) else "kept"] += 1
        with open(image, "r+b") as file:
            file.seek(place)
            file.write(before)
    assert outcomes["kept"] > 3
