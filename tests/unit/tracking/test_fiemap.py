# SPDX-License-Identifier: Apache-2.0
"""Maps of clones, compared with a byte-by-byte truth, on real file systems."""

from __future__ import annotations

import ctypes
import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from deltaimg.freeze.reflink import clone_file
from deltaimg.image.extents import Bounds
from deltaimg.model import KIB, MIB
from deltaimg.tracking.fiemap import FileMap, find_differences, read_file_map
from tests.support.components import loop_file_system

SIZES = {"xfs": 320 * MIB, "btrfs": 256 * MIB}
PAGE = 4 * KIB
SIZE_BYTES = 16 * MIB
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16
_fallocate = ctypes.CDLL(None, use_errno=True).fallocate
_fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


_OPEN = ExitStack()
"""What is open on the file system of the present test."""


@pytest.fixture(params=SIZES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    with loop_file_system(request.param, tmp_path / "mnt", SIZES[request.param]) as made, _OPEN:
        yield made.folder


@pytest.fixture
def btrfs(tmp_path: Path) -> Iterator[Path]:
    with loop_file_system("btrfs", tmp_path / "mnt", SIZES["btrfs"]) as made, _OPEN:
        yield made.folder


class Image:
    """An image file, and the clones that were made of it."""

    def __init__(self, path: Path, size_bytes: int = SIZE_BYTES) -> None:
        self.path = path
        if not path.exists():
            path.write_bytes(os.urandom(size_bytes))
        self.file = os.open(path, os.O_RDWR)
        _OPEN.callback(os.close, self.file)

    def write(self, offset: int, length: int = PAGE) -> None:
        os.pwrite(self.file, os.urandom(length), offset)

    def allocate(self, mode: int, offset: int, length: int) -> None:
        if _fallocate(self.file, mode, offset, length) != 0:
            raise OSError(ctypes.get_errno(), "fallocate")

    def snap(self) -> tuple[FileMap, bytes]:
        """Clone it; return the clone's map and content. The clone lives until the end of the test."""
        clone = clone_file(str(self.path))
        _OPEN.callback(clone.close)
        return read_file_map(clone.descriptor), os.pread(clone.descriptor, os.fstat(clone.descriptor).st_size, 0)


def missed(old: tuple[FileMap, bytes], new: tuple[FileMap, bytes]) -> tuple[Bounds, list[int], list[int]]:
    """Return the differences, pages that differ and are not in them, and pages in them that do not differ."""
    found = find_differences(old[0], new[0])
    reported = {page for start, end in found.tolist() for page in range(start // PAGE, -(-end // PAGE))}
    before, after = old[1][: len(new[1])], new[1]
    pages = range(-(-len(after) // PAGE))
    differing = {page for page in pages if before[page * PAGE :][:PAGE] != after[page * PAGE :][:PAGE]}
    return found, sorted(differing - reported), sorted(reported - differing)


def test_random_writes_are_found_exactly(folder: Path) -> None:
    """They are not synced: making a clone, and reading its map, write them out."""
    image = Image(folder / "vm1.raw")
    old = image.snap()
    assert not len(find_differences(old[0], image.snap()[0]))
    pages = random.Random(1).sample(range(SIZE_BYTES // PAGE), 60)
    for page in pages:
        image.write(page * PAGE)
    new = image.snap()
    found, unseen, extra = missed(old, new)
    assert (unseen, extra) == ([], [])
    assert int((found[:, 1] - found[:, 0]).sum()) == len(pages) * PAGE
    image.write(pages[0] * PAGE)  # a second time
    assert missed(new, image.snap())[0].tolist() == [[pages[0] * PAGE, (pages[0] + 1) * PAGE]]


@pytest.mark.parametrize("number", range(3))
def test_whatever_is_done_to_an_image_is_found(folder: Path, number: int) -> None:
    """Holes, zeroed and preallocated extents, writes into these, odd lengths, growth and shrinking; clone after clone."""
    chance = random.Random(number)
    image = Image(folder / "vm1.raw", 4 * MIB + 12345)
    image.allocate(KEEP_SIZE, 6 * MIB, MIB)
    old = image.snap()
    for _ in range(12):
        for _ in range(chance.randrange(1, 8)):
            offset = chance.randrange(5 * MIB)
            length = chance.choice((1, 100, PAGE, 3 * PAGE + 1, 200 * KIB))
            if chance.random() < 0.5:
                offset, length = offset // PAGE * PAGE, -(-length // PAGE) * PAGE
            act = chance.randrange(7)
            if act < 3:
                image.write(offset, length)
            elif act == 3:
                os.pwrite(image.file, bytes(length), offset)
            elif act == 4:
                image.allocate(KEEP_SIZE | PUNCH_HOLE, offset, length)
            elif act == 5:
                image.allocate(chance.choice((0, KEEP_SIZE, ZERO_RANGE)), offset, length)
            else:
                os.ftruncate(image.file, chance.randrange(3 * MIB, 6 * MIB))
        new = image.snap()
        _, unseen, _ = missed(old, new)
        assert unseen == []
        old = new


def test_an_image_replaced_by_another_file_differs_where_that_does(folder: Path) -> None:
    image = Image(folder / "vm1.raw", MIB)
    old = image.snap()
    (folder / "vm1.raw").unlink()
    other = Image(folder / "vm1.raw", MIB)
    assert find_differences(old[0], other.snap()[0]).tolist() == [[0, MIB]]
    subprocess.run(["cp", "--reflink=always", folder / "vm1.raw", folder / "copy.raw"], check=True)
    assert not len(find_differences(other.snap()[0], Image(folder / "copy.raw").snap()[0]))


def test_what_has_no_address_differs(btrfs: Path) -> None:
    """Files in metadata, and compressed ones: several extents may begin at one address."""
    inline = Image(btrfs / "tiny.raw", 100)
    assert find_differences(inline.snap()[0], inline.snap()[0]).tolist() == [[0, 100]]
    (btrfs / "compressed.raw").touch()
    subprocess.run(["btrfs", "property", "set", btrfs / "compressed.raw", "compression", "zstd"], check=True)
    (btrfs / "compressed.raw").write_bytes(b"compressible " * 100_000)
    packed = Image(btrfs / "compressed.raw")
    assert find_differences(packed.snap()[0], packed.snap()[0]).tolist() == [[0, 1_300_000]]


def test_maps_are_compared_as_bytes(seed: int) -> None:
    """However the extents of either are split."""
    chance = random.Random(seed)

    def draw(size: int) -> tuple[FileMap, list[tuple[int, int]]]:
        edges = sorted({0, *chance.choices(range(size), k=5)})
        kinds = [chance.randrange(3) for _ in edges]
        shifts = [chance.randrange(2) * 100 if kind == 1 else 0 for kind in kinds]
        made = FileMap(np.array(edges, np.int64), np.array(kinds, np.uint8), np.array(shifts, np.int64), size)
        numbers = np.searchsorted(edges, np.arange(size), side="right") - 1
        return made, [(kinds[number], shifts[number]) for number in numbers]

    for _ in range(300):
        (old, of_old), (new, of_new) = draw(chance.randrange(1, 40)), draw(chance.randrange(1, 40))
        found = find_differences(old, new)
        expected = [
            place >= len(of_old) or state != of_old[place] or state[0] == 2 for place, state in enumerate(of_new)
        ]
        reported = np.zeros(len(of_new), np.bool_)
        for start, end in found.tolist():
            reported[start:end] = True
        assert reported.tolist() == expected
