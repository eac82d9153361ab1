# SPDX-License-Identifier: Apache-2.0
"""Free blocks of guests' file systems beside the tools of each: what is taken as free is free for them, and nothing else is."""

from __future__ import annotations

import json
import os
import random
import re
from contextlib import suppress
from pathlib import Path

import pytest

from deltaimg.api.backup import backup
from deltaimg.engine.restore.run import restore
from deltaimg.format.manifest import Manifest
from deltaimg.guest import ext_free, fat_free
from deltaimg.guest.crc32c import find_sum
from deltaimg.guest.free_blocks import FreeBlocks
from deltaimg.guest.window import NOT_RECOGNISED
from deltaimg.model import KIB, MIB
from deltaimg.options.backup import BackupOptions
from deltaimg.repo.repository import Repository
from tests.support.components import loop_file_system, run_or_skip
from tests.support.guest_images import free_blocks, overwrite, read_tree, run
from tests.support.repositories import make_repository


def make_ext(path: Path, mib: int, *options: object, fill: bool = True) -> Path:
    """Make a file system with files in it, some of which are deleted again."""
    with open(path, "wb") as file:
        file.truncate(mib * MIB)
    files = path.with_name("files")
    if fill and not files.exists():
        chance = random.Random(1)
        for number in range(40):
            folder = files / f"d{number % 5}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"f{number}").write_bytes(chance.randbytes(chance.choice((100, 5000, 300 * KIB))))
    run("mke2fs", "-q", "-F", *options, *(["-d", files] if fill else []), path)
    if fill:
        run(
            "debugfs",
            "-w",
            "-f",
            "-",
            path,
            given="".join(f"rm d{number % 5}/f{number}\n" for number in range(0, 40, 3)),
        )
    return path


def listed_free(path: Path) -> tuple[set[int], int]:
    """Return which blocks dumpe2fs lists as free, and how large they are."""
    said = run("dumpe2fs", path)
    sizes = [int(each) for each in re.findall(r"(?:Block|Cluster) size:\s+(\d+)", said)]
    found: set[int] = set()
    for line in re.findall(r"^  Free blocks: (.*)$", said, re.MULTILINE):
        for first, last in re.findall(r"(\d+)(?:-(\d+))?", line):
            # Of clusters the first block is listed.
            found |= set(range(int(first), int(last or first) + sizes[-1] // sizes[0]))
    return found, sizes[0]


KINDS: dict[str, tuple[int, list[object]]] = {
    "ext2": (20, ["-t", "ext2"]),
    "ext2 of 1K": (20, ["-t", "ext2", "-b", 1024]),
    "ext2 without sparse superblocks": (40, ["-t", "ext2", "-b", 1024, "-O", "^sparse_super,^resize_inode"]),
    "ext3": (40, ["-t", "ext3"]),
    "ext4": (64, ["-t", "ext4"]),
    "ext4 of 1K": (64, ["-t", "ext4", "-b", 1024]),
    "ext4 of many groups": (300, ["-t", "ext4", "-b", 1024, "-g", 1024]),
    "ext4 without flex_bg": (64, ["-t", "ext4", "-b", 1024, "-O", "^flex_bg"]),
    "ext4 of 32 bits": (64, ["-t", "ext4", "-O", "^64bit"]),
    "ext4 uninit_bg": (64, ["-t", "ext4", "-b", 1024, "-O", "^metadata_csum,uninit_bg"]),
    "ext4 without checksums": (64, ["-t", "ext4", "-b", 1024, "-O", "^metadata_csum,^uninit_bg"]),
    "ext4 meta_bg": (300, ["-t", "ext4", "-b", 1024, "-g", 1024, "-O", "meta_bg,^resize_inode"]),
    "ext4 meta_bg without flex_bg": (
        300,
        ["-t", "ext4", "-b", 1024, "-g", 1024, "-O", "meta_bg,^resize_inode,^flex_bg"],
    ),
    "ext4 bigalloc": (64, ["-t", "ext4", "-O", "bigalloc", "-C", 16384]),
    "ext4 sparse_super2": (64, ["-t", "ext4", "-b", 1024, "-O", "sparse_super2,^resize_inode"]),
    "ext4 checksum seed": (64, ["-t", "ext4", "-O", "metadata_csum_seed"]),
    "ext4 of an odd size": (61, ["-t", "ext4", "-b", 1024, "-g", 8192]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_free_blocks_of_ext_are_those_that_dumpe2fs_lists(tmp_path: Path, kind: str) -> None:
    mib, options = KINDS[kind]
    image = make_ext(tmp_path / "image", mib, *options)
    found, (expected, block_bytes) = free_blocks(image, ext_free.find_free), listed_free(image)
    assert isinstance(found, FreeBlocks), found
    assert found.kept_groups == 0
    free = {block for start, end in found.bounds.tolist() for block in range(start // block_bytes, end // block_bytes)}
    assert free == expected
    assert len(free) > 1000


@pytest.mark.parametrize(
    "kind", ["ext2 of 1K", "ext4 of many groups", "ext4 uninit_bg", "ext4 meta_bg", "ext4 bigalloc"]
)
def test_what_is_free_may_hold_anything(tmp_path: Path, kind: str) -> None:
    """Overwritten, the file system is as it was: e2fsck has nothing to say, and every file is equal."""
    mib, options = KINDS[kind]
    image = make_ext(tmp_path / "image", mib, *options)
    (tmp_path / "before").mkdir()
    run("debugfs", "-R", f"rdump / {tmp_path / 'before'}", image)
    found = free_blocks(image, ext_free.find_free)
    assert isinstance(found, FreeBlocks)
    overwrite(image, found)
    run("e2fsck", "-fn", image)
    (tmp_path / "after").mkdir()
    run("debugfs", "-R", f"rdump / {tmp_path / 'after'}", image)
    assert read_tree(tmp_path / "before") == read_tree(tmp_path / "after")
    assert len(read_tree(tmp_path / "after")) > 20


# -- what is kept ------------------------------------------------------------------------------------------------------


def set_field(image: Path, name: str, value: object) -> None:
    run("debugfs", "-w", "-R", f"set_super_value {name} {value}", image)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("feature_incompat", 0x2C6, "its journal is to be replayed"), ("state", 0, "not unmounted in order"),
        ("feature_incompat", 0x2C3, "features that are not known"), ("state", 3, "has errors"),
        ("feature_ro_compat", 0x4C46B, "features that are not known"),
    ],
)  # fmt: skip
def test_a_file_system_that_may_not_be_right_is_kept(tmp_path: Path, name: str, value: int, problem: str) -> None:
    image = make_ext(tmp_path / "image", 20, "-t", "ext4", fill=False)
    assert isinstance(free_blocks(image, ext_free.find_free), FreeBlocks)
    set_field(image, name, value)
    found = free_blocks(image, ext_free.find_free)
    assert isinstance(found, str), found
    assert problem in found


def test_a_superblock_with_a_wrong_checksum_is_kept(tmp_path: Path) -> None:
    image = make_ext(tmp_path / "image", 20, "-t", "ext4", fill=False)
    with open(image, "r+b") as file:
        file.seek(1024 + 48)
        file.write(b"\x01\x02\x03")
    assert free_blocks(image, ext_free.find_free) == "the checksum of its superblock is wrong"


@pytest.mark.parametrize("options", [["-t", "ext4", "-b", 1024], ["-t", "ext4", "-b", 1024, "-O", "^metadata_csum"]])
@pytest.mark.parametrize("target", ["bitmap", "descriptor"])
def test_a_group_that_is_not_right_is_kept(tmp_path: Path, options: list[object], target: str) -> None:
    """One bit says that a used block is free."""
    image = make_ext(tmp_path / "image", 64, *options)
    before = free_blocks(image, ext_free.find_free)
    said = run("dumpe2fs", image)
    place = re.search(r"Block bitmap at (\d+)", said)
    assert place is not None
    offset = int(place[1]) * 1024 if target == "bitmap" else 2048 + 12
    with open(image, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))
    found = free_blocks(image, ext_free.find_free)
    assert isinstance(before, FreeBlocks)
    assert isinstance(found, FreeBlocks)
    assert found.kept_groups == 1
    first = found.bounds[:, 0].min()
    assert first >= 8192 * 1024


def test_structures_of_any_content_keep_or_are_no_error(tmp_path: Path, seed: int) -> None:
    image, chance = make_ext(tmp_path / "image", 20, "-t", "ext2", "-b", 1024), random.Random(seed)
    plain = image.read_bytes()
    for _ in range(100):
        content = bytearray(plain)
        for _ in range(chance.randrange(1, 4)):
            content[1024 + chance.randrange(2048)] = chance.choice((0, 1, 0x7F, 0xFF, chance.randrange(256)))
        image.write_bytes(content)
        with suppress(*NOT_RECOGNISED):
            found = free_blocks(image, ext_free.find_free)
            assert isinstance(found, str) or 0 <= found.bounds.max(initial=0) <= len(content)


def test_checksums_are_those_of_the_standard() -> None:
    assert find_sum(b"123456789") ^ 0xFFFFFFFF == 0xE3069283
    assert find_sum(bytes(32)) ^ 0xFFFFFFFF == 0x8A9136AA


# -- what lay there before ---------------------------------------------------------------------------------------------

RAID = b"\xfc\x4e\x2b\xa9\x01\x00\x00\x00"


def put(image: Path, offset: int, content: bytes) -> None:
    with open(image, "r+b") as file:
        file.seek(offset if offset >= 0 else image.stat().st_size + offset)
        file.write(content)


@pytest.mark.parametrize(
    ("owner", "offset", "magic"),
    [
        ("LUKS", 0, b"LUKS\xba\xbe\x00\x01"),
        ("Linux RAID", 4096, RAID),
        ("Linux RAID", -8192, RAID),
        ("Linux RAID", -65536, b"\xa9\x2b\x4e\xfc"),
        ("Stratis", 516, b"!Stra0tis\x86\xff\x02^\x41rh"),
        ("bcache", 4096 + 24, bytes.fromhex("c68573f64e1a45ca8265f57f48ba6d81")),
        ("ZFS", 128 * KIB + 5 * KIB, bytes.fromhex("0cb1ba0000000000")),
        ("ZFS", 256 * KIB - KIB, bytes.fromhex("0000000000bab10c")),
        ("ReiserFS", 64 * KIB + 52, b"ReIsEr2Fs"),
        ("btrfs", 64 * KIB + 64, b"_BHRfS_M"),
        ("LVM2_member", 512, b"LABELONE" + (1).to_bytes(8, "little") + bytes(4) + bytes([32, 0, 0, 0]) + b"LVM2 001"),
    ],
)
def test_what_became_part_of_something_else_is_kept(tmp_path: Path, owner: str, offset: int, magic: bytes) -> None:
    """All of these can be made over a file system whose superblock stays, with every checksum right."""
    image = make_ext(tmp_path / "image", 20, "-t", "ext4", fill=False)
    put(image, offset, magic)
    if owner == "btrfs":
        put(image, 64 * KIB + 112, (20 * MIB).to_bytes(8, "little") + bytes(8))
        put(image, 64 * KIB + 136, (1).to_bytes(8, "little") + (4096).to_bytes(4, "little"))
    if owner == "LVM2_member":
        put(image, 512 + 32, b"a" * 32 + (20 * MIB).to_bytes(8, "little"))
    found = run_backup(make_repository(), image, free_space="skip").free_space
    assert found is not None
    assert found.skipped_bytes == 0
    assert owner in found.reason


@pytest.mark.parametrize(("has_table", "superblock"), [(False, 4096), (True, 4096), (True, MIB + 4096)])
def test_content_of_a_raid_survives_the_file_system_before_it(tmp_path: Path, has_table: bool, superblock: int) -> None:
    """As mdadm leaves it, on the disk as a whole or in a partition: a superblock at 4 KiB, content behind the first MiB."""
    image = make_ext(tmp_path / "part", 40, "-t", "ext4", fill=False)
    if has_table:
        place(tmp_path / "image", image, MIB, f"label: dos\nstart=2048, size={40 * 2048}\n")
        image = tmp_path / "image"
    put(image, superblock, RAID)
    put(image, image.stat().st_size - 20 * MIB, random.Random(2).randbytes(16 * MIB))
    repository = make_repository()
    restore(repository, run_backup(repository, image, free_space="skip"), str(tmp_path / "restored"))
    assert (tmp_path / "restored").read_bytes() == image.read_bytes()


def test_a_partition_that_overlaps_another_is_kept(tmp_path: Path) -> None:
    """A table that was written by hand, or by a tool of another system: the free blocks of one are content of the other."""
    part, image = make_ext(tmp_path / "part", 40, "-t", "ext4", fill=False), tmp_path / "image"
    place(image, part, MIB, f"label: dos\nstart=2048, size={40 * 2048}\n")
    put(
        image,
        446 + 16,
        b"\x00\x00\x00\x00\x83\x00\x00\x00" + (20 * 2048).to_bytes(4, "little") + (2048).to_bytes(4, "little"),
    )
    found = run_backup(make_repository(), image, free_space="skip").free_space
    assert found is not None
    assert found.skipped_bytes == 0
    assert "partition 1 (ext4): it overlaps partition 2" in found.reason
    assert "partition 2: it overlaps partition 1 (ext4)" in found.reason


# -- FAT ---------------------------------------------------------------------------------------------------------------


def make_fat(path: Path, bits: int) -> Path:
    """Make an empty FAT of one kind."""
    with open(path, "wb") as file:
        file.truncate({12: 4, 16: 40, 32: 64}[bits] * MIB)
    run("mkfs.vfat", "-F", bits, "-s", 2 if bits == 32 else 4, path)
    return path


@pytest.mark.parametrize("bits", [12, 16, 32])
def test_free_clusters_of_fat_are_as_many_as_fsck_counts(tmp_path: Path, bits: int) -> None:
    """And what is in them is of no interest to it."""
    image = make_fat(tmp_path / "image", bits)
    found = free_blocks(image, fat_free.find_free)
    assert isinstance(found, FreeBlocks)
    said = run("fsck.vfat", "-n", "-v", image)
    counted, size = re.search(r"files, (\d+)/(\d+) clusters", said), re.search(r"(\d+) bytes per cluster", said)
    assert counted is not None
    assert size is not None
    free_bytes = int((found.bounds[:, 1] - found.bounds[:, 0]).sum())
    assert free_bytes == (int(counted[2]) - int(counted[1])) * int(size[1])
    overwrite(image, found)
    assert run("fsck.vfat", "-n", "-v", image) == said
    assert free_bytes > 3 * MIB


@pytest.mark.parametrize("bits", [12, 16, 32])
def test_a_fat_that_may_not_be_right_is_kept(tmp_path: Path, bits: int) -> None:
    image = make_fat(tmp_path / "image", bits)
    plain = image.read_bytes()
    state, entry = (65, 7) if bits == 32 else (37, 3)
    table = int.from_bytes(plain[14:16], "little") * 512
    changes = {state: "it is mounted", table + 200: "its tables differ"}
    if bits > 12:
        changes[table + entry] = "not unmounted in order"
    for offset, problem in changes.items():
        content = bytearray(plain)
        content[offset] ^= 0x1 if offset != table + entry else (0x08 if bits == 32 else 0x80)
        image.write_bytes(content)
        found = free_blocks(image, fat_free.find_free)
        assert isinstance(found, str)
        assert problem in found


# -- backups without free space ----------------------------------------------------------------------------------------


def run_backup(repository: Repository, image: Path, **options: object) -> Manifest:
    return backup(repository, str(image), "vm1", BackupOptions(workers=2, **options))  # type: ignore[arg-type]


def place(image: Path, part: Path, start: int, script: str) -> None:
    """Put a file system into a partition of a new image."""
    with open(image, "wb") as file:
        file.truncate(start + part.stat().st_size + 2 * MIB)
    run("sfdisk", "-q", image, given=script)
    with open(image, "r+b") as file:
        file.seek(start)
        file.write(part.read_bytes())


@pytest.mark.parametrize(("table", "start"), [("dos", 63 * 512), ("gpt", MIB)])
def test_what_is_restored_has_every_file_and_no_more(tmp_path: Path, table: str, start: int) -> None:
    """Partitions that begin at sector 63 too, as they did: no block of the file system is a block of the image then."""
    part, image = make_ext(tmp_path / "part", 40, "-t", "ext4"), tmp_path / "image"
    free = free_blocks(part, ext_free.find_free)
    assert isinstance(free, FreeBlocks)
    overwrite(part, free)
    place(image, part, start, f"label: {table}\nstart={start // 512}, size={40 * 2048}\n")
    repository = make_repository()
    skipped = run_backup(repository, image, free_space="skip")
    assert skipped.free_space is not None
    assert skipped.free_space.reason == ""
    kept = run_backup(make_repository(), image)
    assert skipped.statistics.changed_bytes <= kept.statistics.changed_bytes - 20 * MIB
    restore(repository, skipped, str(tmp_path / "restored"))
    content = (tmp_path / "restored").read_bytes()
    assert len(content) == image.stat().st_size
    (tmp_path / "again").write_bytes(content[start : start + 40 * MIB])
    run("e2fsck", "-fn", tmp_path / "again")
    trees = []
    for name in ("part", "again"):
        (tmp_path / f"{name}-tree").mkdir()
        run("debugfs", "-R", f"rdump / {tmp_path / f'{name}-tree'}", tmp_path / name)
        trees.append(read_tree(tmp_path / f"{name}-tree"))
    assert trees[0] == trees[1]
    again = run_backup(repository, image, free_space="skip")
    assert again.statistics.changed_bytes == 0


def test_a_guest_that_runs_keeps_all_unless_it_is_frozen(tmp_path: Path) -> None:
    repository = make_repository()
    with loop_file_system("xfs", tmp_path / "mnt", 320 * MIB) as made:
        image, guest = made.folder / "vm1.raw", tmp_path / "guest"
        make_ext(image, 40, "-t", "ext4", fill=False)
        guest.mkdir()
        run_or_skip("loop", "mount", "-o", "loop", str(image), str(guest))
        try:
            (guest / "file").write_bytes(os.urandom(MIB))
            (guest / "deleted").write_bytes(os.urandom(4 * MIB))
            os.sync()
            (guest / "deleted").unlink()
            found = run_backup(repository, image, freeze="reflink", free_space="skip").free_space
            assert found is not None
            assert (found.skipped_bytes, found.reason) == (
                0,
                "ext4: its journal is to be replayed: it is mounted, or was not unmounted",
            )
            hooks = {"pre_freeze": f"fsfreeze -f {guest}", "post_freeze": f"fsfreeze -u {guest}"}
            frozen = run_backup(repository, image, freeze="reflink", free_space="skip", **hooks)
            assert frozen.free_space is not None
            assert (frozen.free_space.skipped_bytes > MIB, frozen.free_space.reason) == (True, "")
            live = run_backup(repository, image, allow_live=True, free_space="skip")
            assert live.free_space is not None
            assert live.free_space.reason == "the image is in use"
        finally:
            run("umount", guest)
    restore(repository, frozen, str(tmp_path / "restored"))
    run("e2fsck", "-fn", tmp_path / "restored")


def test_what_was_free_is_read_when_it_is_used_unwritten(tmp_path: Path) -> None:
    """A tracker rightly calls it unchanged; the snapshot before has a hole there."""
    image = make_ext(tmp_path / "image", 40, "-t", "ext2")
    found = free_blocks(image, ext_free.find_free)
    assert isinstance(found, FreeBlocks)
    overwrite(image, found)
    repository = make_repository()
    first = run_backup(repository, image, free_space="skip")
    hints = tmp_path / "hints.json"
    hints.write_text(json.dumps({"snapshot": first.id, "extents": []}))
    second = run_backup(repository, image, free_space="keep", hints=str(hints))
    assert second.tracking is not None
    assert (second.tracking.method, second.tracking.refuted_blocks) == ("hints", 0)
    restore(repository, second, str(tmp_path / "restored"))
    assert (tmp_path / "restored").read_bytes() == image.read_bytes()
