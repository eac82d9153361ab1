# SPDX-License-Identifier: Apache-2.0
"""Free blocks of XFS, NTFS and swap space beside the tools of each: what is taken as free is free for them."""

from __future__ import annotations

import os
import random
import re
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from deltaimg.guest import ntfs_free, swap, xfs_free, xfs_log
from deltaimg.guest.free_blocks import FreeBlocks
from deltaimg.guest.window import NOT_RECOGNISED, Window
from deltaimg.model import KIB, MIB
from tests.support.components import requires_root, run_or_skip
from tests.support.guest_images import free_blocks, overwrite, read_tree, run

# -- XFS ---------------------------------------------------------------------------------------------------------------

XFS_KINDS: dict[str, list[object]] = {
    "by default": [],
    "of 1K": ["-b", "size=1024", "-d", "agcount=4"],
    "without checksums": ["-m", "crc=0,finobt=0,rmapbt=0,reflink=0"],
    "of sectors of 4K": ["-s", "size=4096"],
    "of a striped log": ["-l", "su=256k"],
    "of a log of version 1": ["-m", "crc=0,finobt=0,rmapbt=0,reflink=0", "-l", "version=1"],
    "with all features": ["-m", "rmapbt=1,reflink=1,bigtime=1,inobtcount=1", "-i", "sparse=1"],
}


@contextmanager
def mounted(image: Path, folder: Path, *options: str) -> Iterator[Path]:
    requires_root()
    folder.mkdir(exist_ok=True)
    run_or_skip("loop", "mount", "-o", ",".join(("loop", *options)), str(image), str(folder))
    try:
        yield folder
    finally:
        run("umount", folder)


def fill(folder: Path) -> None:
    """Make files, and delete a part of them."""
    chance = random.Random(2)
    for number in range(300):
        (folder / f"f{number}").write_bytes(chance.randbytes(chance.choice((100, 5000, 300 * KIB))))
    os.sync()
    for number in range(0, 300, 3):
        (folder / f"f{number}").unlink()


def make_xfs(path: Path, *options: object, is_filled: bool = True) -> Path:
    with open(path, "wb") as file:
        file.truncate(330 * MIB)
    run("mkfs.xfs", "-q", *options, path)
    if is_filled:
        with mounted(path, path.with_name("filling")) as folder:
            fill(folder)
    return path


def list_free_of_xfs(path: Path) -> tuple[set[tuple[int, int]], int]:
    """Return group and block of each free block by xfs_db, those of the groups' own lists included, and how many these are."""
    said = run("xfs_db", "-r", "-f", "-c", "freesp -d", path)
    found = set()
    for group, first, count in re.findall(r"^\s+(\d+)\s+(\d+)\s+(\d+)$", said, re.MULTILINE):
        found |= {(int(group), block) for block in range(int(first), int(first) + int(count))}
    groups = 1 + max(group for group, _ in found)
    words = [word for group in range(groups) for word in ("-c", f"agf {group}", "-c", "p flcount")]
    listed = re.findall(r"flcount = (\d+)", run("xfs_db", "-r", "-f", *words, path))
    return found, sum(map(int, listed))


def read_xfs_field(path: Path, where: str, field: str) -> int:
    return int(re.findall(r"= (\d+)", run("xfs_db", "-r", "-f", "-c", where, "-c", f"p {field}", path))[0])


@pytest.mark.parametrize("kind", XFS_KINDS)
def test_free_blocks_of_xfs_are_those_that_xfs_db_lists(tmp_path: Path, kind: str) -> None:
    # Kernels of today mount none without checksums.
    image = make_xfs(tmp_path / "image", *XFS_KINDS[kind], is_filled="crc=0" not in " ".join(map(str, XFS_KINDS[kind])))
    found, (listed, kept) = free_blocks(image, xfs_free.find_free), list_free_of_xfs(image)
    assert isinstance(found, FreeBlocks), found
    assert found.kept_groups == 0
    block_bytes, group_blocks = (read_xfs_field(image, "sb 0", name) for name in ("blocksize", "agblocks"))
    free = {
        divmod(block, group_blocks)
        for start, end in found.bounds.tolist()
        for block in range(start // block_bytes, end // block_bytes)
    }
    assert free <= listed
    assert len(free) == len(listed) - kept
    assert len(free) * block_bytes > 200 * MIB


@pytest.mark.parametrize("kind", ["by default", "of 1K"])
def test_what_xfs_has_free_may_hold_anything(tmp_path: Path, kind: str) -> None:
    image = make_xfs(tmp_path / "image", *XFS_KINDS[kind])
    with mounted(image, tmp_path / "mnt", "ro", "norecovery") as folder:
        before = read_tree(folder)
    found = free_blocks(image, xfs_free.find_free)
    assert isinstance(found, FreeBlocks)
    overwrite(image, found)
    run("xfs_repair", "-n", "-f", image)
    with mounted(image, tmp_path / "mnt") as folder:
        assert read_tree(folder) == before
    assert len(before) == 200


def test_an_xfs_that_is_mounted_or_was_cut_off_is_kept(tmp_path: Path) -> None:
    image, copy = make_xfs(tmp_path / "image"), tmp_path / "copy"
    for cycle in range(3):
        with mounted(image, tmp_path / "mnt") as folder:
            (folder / f"new{cycle}").write_bytes(bytes(100_000))
            os.sync()
            run("cp", "--sparse=always", image, copy)
            assert free_blocks(copy, xfs_free.find_free) == "it is mounted, frozen, or was not unmounted in order"
        assert isinstance(free_blocks(image, xfs_free.find_free), FreeBlocks)


class Bytes:
    """An image in memory."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def read_at(self, offset: int, length: int) -> bytes:
        return self.content[offset : offset + length]


def make_log(blocks: int, head: int, newest: int, padded: int = 1, flags: int = 0x20) -> bytes:
    """Return a log of an XFS whose last record, a header and `padded` blocks, ends at `head`, and is an unmount record."""
    log = bytearray()
    for number in range(blocks):
        log += (newest if number < head else newest - 1).to_bytes(4, "big") + random.Random(number).randbytes(508)
    start = head - padded - 1
    header = bytearray(512)
    for offset, value in ((0, 0xFEEDBABE), (4, newest), (8, 2), (12, 512 * padded), (40, 1), (320, 32768)):
        header[offset : offset + 4] = value.to_bytes(4, "big")
    header[304:320] = LOG_UUID
    log[512 * start : 512 * start + 512] = header
    log[512 * (start + 1) + 9] = flags
    return bytes(log)


LOG_UUID = bytes(range(16))


@pytest.mark.parametrize("padded", [1, 8, 64])
@pytest.mark.parametrize("newest", [1, 2, 77])
def test_a_log_of_xfs_is_clean_wherever_in_the_ring_it_ends(padded: int, newest: int) -> None:
    for head in (padded + 1, padded + 2, 100, 150, 199, 200):
        log = make_log(200, head, newest, padded)
        assert xfs_log.is_clean(Window(Bytes(log), 0, len(log)), LOG_UUID)
        assert not xfs_log.is_clean(Window(Bytes(log), 0, len(log)), LOG_UUID[::-1])


def test_a_log_of_xfs_that_ends_otherwise_is_not_clean() -> None:
    log = make_log(200, 100, 7)
    stray, behind = bytearray(log), bytearray(log)
    stray[512 * 60 : 512 * 60 + 4] = (6).to_bytes(4, "big")  # a block that was on its way when the power went
    behind[512 * 130 : 512 * 130 + 4] = (7).to_bytes(4, "big")
    later = bytearray(log)
    later[512 * 100 : 512 * 100 + 4] = (7).to_bytes(4, "big")  # something follows the unmount record
    for bad in (make_log(200, 100, 7, flags=0), bytes(stray), bytes(behind), bytes(later), bytes(200 * 512)):
        assert not xfs_log.is_clean(Window(Bytes(bad), 0, len(bad)), LOG_UUID)


def test_a_group_of_xfs_that_is_not_right_is_kept(tmp_path: Path) -> None:
    image = make_xfs(tmp_path / "image")
    before = free_blocks(image, xfs_free.find_free)
    root = read_xfs_field(image, "agf 1", "bnoroot")
    block_bytes, group_blocks = (read_xfs_field(image, "sb 0", name) for name in ("blocksize", "agblocks"))
    group = group_blocks * block_bytes
    assert isinstance(before, FreeBlocks)
    for offset in (group + 512 + 52, group + root * block_bytes + 60):  # the count in the header; an extent
        plain = image.read_bytes()[offset]
        write_byte(image, offset, plain ^ 1)
        found = free_blocks(image, xfs_free.find_free)
        write_byte(image, offset, plain)
        assert isinstance(found, FreeBlocks)
        assert found.kept_groups == 1
        assert not [start for start, _ in found.bounds.tolist() if group <= start < 2 * group]


@pytest.mark.parametrize(
    ("offset", "value", "problem"),
    [
        (219, 0x1B, "it needs xfs_repair"),
        (216, 0x80, "features that are not known"),
        (212, 0x80, "features that are not known"),
        (101, 0x36, "its version is not known"),
        (126, 1, "still being made"),
        (32, 0x99, "not unmounted in order"),  # another UUID: the log is another file system's
    ],
)
def test_an_xfs_that_is_not_known_is_kept(tmp_path: Path, offset: int, value: int, problem: str) -> None:
    image = make_xfs(tmp_path / "image", is_filled=False)
    write_byte(image, offset, value)
    found = free_blocks(image, xfs_free.find_free)
    assert isinstance(found, str), found
    assert problem in found


def write_byte(image: Path, offset: int, value: int) -> None:
    with open(image, "r+b") as file:
        file.seek(offset)
        file.write(bytes([value]))


def test_structures_of_xfs_of_any_content_keep_or_are_no_error(tmp_path: Path, seed: int) -> None:
    image, chance = make_xfs(tmp_path / "image", *XFS_KINDS["without checksums"], is_filled=False), random.Random(seed)
    size = image.stat().st_size
    with open(image, "r+b") as file:
        for _ in range(100):
            offset = chance.choice((chance.randrange(4, 264), 512 + chance.randrange(64), 4096 + chance.randrange(100)))
            plain = os.pread(file.fileno(), 1, offset)
            os.pwrite(file.fileno(), bytes([chance.choice((0, 1, 0x7F, 0xFF, chance.randrange(256)))]), offset)
            with suppress(*NOT_RECOGNISED):
                found = free_blocks(image, xfs_free.find_free)
                assert isinstance(found, str) or 0 <= found.bounds.max(initial=0) <= size
            os.pwrite(file.fileno(), plain, offset)


# -- NTFS --------------------------------------------------------------------------------------------------------------


def make_ntfs(path: Path, *options: object) -> Path:
    with open(path, "wb") as file:
        file.truncate(60 * MIB)
    run("mkntfs", "-q", "-F", *options, path)
    return path


def put_file(image: Path, folder: Path, name: str, content: bytes) -> None:
    (folder / "content").write_bytes(content)
    run("ntfscp", "-q", image, folder / "content", name)


@pytest.mark.parametrize("options", [[], ["-c", 512], ["-c", 65536]])
def test_free_clusters_of_ntfs_are_as_many_as_ntfsinfo_counts(tmp_path: Path, options: list[object]) -> None:
    """And what is in them is of no interest to its tools."""
    image = make_ntfs(tmp_path / "image", *options)
    files = {f"f{number}": random.Random(number).randbytes(10_000 * number + 3) for number in range(12)}
    for name, content in files.items():
        put_file(image, tmp_path, name, content)
    found = free_blocks(image, ntfs_free.find_free)
    assert isinstance(found, FreeBlocks), found
    said = run("ntfsinfo", "-m", image)
    size, count = (int(re.findall(rf"{name}: (\d+)", said)[0]) for name in ("Cluster Size", "Free Clusters"))
    assert int((found.bounds[:, 1] - found.bounds[:, 0]).sum()) == size * count > 40 * MIB
    overwrite(image, found)
    run("ntfsfix", "-n", image)
    for name, content in files.items():
        assert subprocess.run(["ntfscat", image, name], capture_output=True, check=True).stdout == content


def test_an_ntfs_that_is_mounted_is_kept(tmp_path: Path) -> None:
    """ntfs-3g marks no volume as dirty; Windows does: bit 1 of the flags, and the journal is in use."""
    image = make_ntfs(tmp_path / "image")
    assert isinstance(free_blocks(image, ntfs_free.find_free), FreeBlocks)
    run("ntfsfix", image)  # has Windows check it at the next start
    assert free_blocks(image, ntfs_free.find_free) == "it is mounted, or marked for a check"


@pytest.mark.parametrize(
    ("major", "in_use", "flags", "is_kept"), [(1, 0xFFFF, 0, False), (1, 0, 2, False), (1, 0, 0, True), (2, 0xFFFF, 2, True)]
)  # fmt: skip
def test_a_journal_of_ntfs_says_whether_it_was_unmounted(
    tmp_path: Path, major: int, in_use: int, flags: int, is_kept: bool
) -> None:
    """Restart pages as Windows writes them, in place of the empty journal of mkntfs; the newer one counts."""
    image = make_ntfs(tmp_path / "image")
    content = image.read_bytes()
    log = max(re.finditer(rb"\xff{4096}", content), key=lambda run: len(run[0]))
    start = next(at for at in range(log.start() - log.start() % 4096, len(content), 4096) if content[at] == 0xFF)
    pages = restart_page(7, 1, 0, 0) + restart_page(8, major, in_use, flags)
    image.write_bytes(content[:start] + pages + content[start + len(pages) :])
    found = free_blocks(image, ntfs_free.find_free)
    assert (found == "it is mounted, or was not unmounted in order") == is_kept
    assert isinstance(found, FreeBlocks) != is_kept


def restart_page(number: int, major: int, in_use: int, flags: int) -> bytes:
    page = bytearray(4096)
    page[0:8] = b"RSTR" + (30).to_bytes(2, "little") + (9).to_bytes(2, "little")
    for offset, width, value in (
        (16, 4, 4096), (20, 4, 4096), (24, 2, 48), (26, 2, 1), (28, 2, major),
        (48, 8, number), (56, 2, 1), (58, 2, 0xFFFF), (60, 2, in_use), (62, 2, flags),
    ):  # fmt: skip
        page[offset : offset + width] = value.to_bytes(width, "little")
    page[30:32] = b"\x01\x00"
    for sector in range(1, 9):
        page[30 + 2 * sector : 32 + 2 * sector] = page[512 * sector - 2 : 512 * sector]
        page[512 * sector - 2 : 512 * sector] = b"\x01\x00"
    return bytes(page)


@pytest.mark.parametrize(
    ("head", "is_kept"), [(b"hibr", True), (b"HIBR", True), (b"RSTR", True), (b"wake", False), (b"\0\0\0\0", False)]
)
def test_an_ntfs_with_which_windows_hibernated_is_kept(tmp_path: Path, head: bytes, is_kept: bool) -> None:
    image = make_ntfs(tmp_path / "image")
    put_file(image, tmp_path, "HiberFil.sys", head + bytes(100_000))
    for number in range(60):  # so many that the folder has blocks of its own
        put_file(image, tmp_path, f"a file with a long name, number {number}", b"x")
    found = free_blocks(image, ntfs_free.find_free)
    assert isinstance(found, str) == is_kept
    assert is_kept == (found == "Windows hibernated, or shut down for a fast start-up")


@pytest.mark.parametrize(("catalog", "is_kept"), [(0x4000, True), (0, False)])
def test_an_ntfs_with_shadow_copies_is_kept(tmp_path: Path, catalog: int, is_kept: bool) -> None:
    """They read what was deleted since where it was. Without any, the header that Windows leaves has no catalog."""
    image = make_ntfs(tmp_path / "image")
    header = bytes.fromhex("6b87083876c1484eb7ae04046e6cc752") + struct.pack(
        "<IIQQQQ", 1, 1, 0x1E00, 0x1E00, 0, catalog
    )
    with open(image, "r+b") as file:
        os.pwrite(file.fileno(), header, 0x1E00)
    found = free_blocks(image, ntfs_free.find_free)
    assert isinstance(found, str) == is_kept
    assert is_kept == ("shadow copies" in str(found))


def test_structures_of_ntfs_of_any_content_keep_or_are_no_error(tmp_path: Path, seed: int) -> None:
    image, chance = make_ntfs(tmp_path / "image"), random.Random(seed)
    size = image.stat().st_size
    with open(image, "r+b") as file:
        table = int.from_bytes(os.pread(file.fileno(), 8, 48), "little") * 4096
        for _ in range(150):
            offset = chance.choice((chance.randrange(11, 80), table + chance.randrange(7 * 1024)))
            plain = os.pread(file.fileno(), 1, offset)
            os.pwrite(file.fileno(), bytes([chance.choice((0, 1, 0x7F, 0xFF, chance.randrange(256)))]), offset)
            with suppress(*NOT_RECOGNISED):
                found = free_blocks(image, ntfs_free.find_free)
                assert isinstance(found, str) or 0 <= found.bounds.max(initial=0) <= size
            os.pwrite(file.fileno(), plain, offset)


# -- swap space --------------------------------------------------------------------------------------------------------


def test_swap_space_is_free_behind_its_header_unless_the_guest_hibernated(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(os.urandom(2 * MIB))
    run("mkswap", "-L", "exchange", image)
    found = free_blocks(image, swap.find_free)
    assert isinstance(found, FreeBlocks)
    assert found.bounds.tolist() == [[4096, 2 * MIB]]
    overwrite(image, found)
    assert "exchange" in run("blkid", "-p", image)
    with open(image, "r+b") as file:
        file.seek(4086)
        file.write(b"S1SUSPEND\0")
    assert isinstance(free_blocks(image, swap.find_free), str)
