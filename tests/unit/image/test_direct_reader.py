# SPDX-License-Identifier: Apache-2.0
"""Reads with O_DIRECT: at any offset, of any length, into any memory; on disks with sectors of 512 and of 4096 bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from deltaimg.arrays import RANGE
from deltaimg.engine.backup.run import back_up
from deltaimg.errors import ImageError
from deltaimg.image.open_source import open_source
from deltaimg.model import KIB, MIB
from deltaimg.options.backup import BackupOptions
from deltaimg.repo.repository import Repository
from tests.support.components import loop_device, requires_program, run_or_skip, skip_without
from tests.support.devices import mounted
from tests.support.images import SyntheticImage, make_incompressible_image
from tests.support.repositories import assert_restores, make_repository

PLACES = ["device 512", "device 4096", "ext4 512", "ext4 4096", "xfs 512", "xfs 4096"]
MAKE = {"ext4": ("mkfs.ext4", "-q", "-F"), "xfs": ("mkfs.xfs", "-q", "-f")}


class Place:
    """Where an image is kept: a file on a file system, or a device as large as it."""

    def __init__(self, path: str, backing: Path | None) -> None:
        self.path, self._backing = path, backing

    def save(self, image: SyntheticImage) -> None:
        with open(self.path, "r+b" if self._backing else "wb") as file:
            file.write(image.content)
            file.flush()
            os.fsync(file.fileno())


def open_place(stack: ExitStack, name: str, folder: Path, size_bytes: int) -> Place:
    kind, sector_bytes = name.split()
    backing = folder / "backing"
    with open(backing, "wb") as file:
        file.truncate(size_bytes if kind == "device" else 320 * MIB)
    device = stack.enter_context(loop_device(backing, sector_bytes=int(sector_bytes)))
    if kind == "device":
        return Place(device, backing)
    run_or_skip(kind, requires_program(MAKE[kind][0]), *MAKE[kind][1:], device)
    return Place(str(stack.enter_context(mounted(device, folder / "mnt")) / "image.raw"), None)


@pytest.fixture(params=PLACES)
def place_name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def back_up_directly(repository: Repository, path: str, **options: object) -> object:
    source = open_source(path, is_direct=True)
    try:
        return back_up(repository, source, "vm1", BackupOptions(workers=2, **options))  # type: ignore[arg-type]
    finally:
        source.close()


def sizes_for(place_name: str) -> list[int]:
    """Return sizes of images that this place may have: a device has whole sectors."""
    if place_name == "device 512":
        return [3 * MIB, 3 * MIB + 512, 3 * MIB + 4096 + 2560]
    return [3 * MIB, 3 * MIB + 4096] if place_name == "device 4096" else [3 * MIB, 3 * MIB + 512, 3 * MIB + 1, 700]


@pytest.mark.parametrize("delta", ["auto", "zstd"])
def test_a_full_and_an_incremental_backup(tmp_path: Path, stack: ExitStack, place_name: str, delta: str) -> None:
    """Every run that found changes ended with EINVAL: delta sources were read again into memory that was not aligned."""
    for number, size_bytes in enumerate(sizes_for(place_name)):
        folder = tmp_path / str(number)
        folder.mkdir()
        with ExitStack() as inner:
            place = open_place(inner, place_name, folder, size_bytes)
            image = make_incompressible_image(size_bytes, seed=number)
            repository = make_repository()
            for step in range(3):
                place.save(image)
                manifest = back_up_directly(repository, place.path, delta=delta)
                assert_restores(repository, manifest, image.content)  # type: ignore[arg-type]
                for offset in range(step * 100, size_bytes, 60 * KIB):
                    image.write(offset, b"a few bytes in many pages, which are deltas then")


def test_any_range_into_any_memory(tmp_path: Path, stack: ExitStack, place_name: str) -> None:
    size_bytes = sizes_for(place_name)[1]
    place = open_place(stack, place_name, tmp_path, size_bytes)
    image = SyntheticImage(size_bytes, seed=3)
    image.write_random(0, size_bytes)
    place.save(image)
    source = open_source(place.path, is_direct=True)
    memory = memoryview(bytearray(2 * MIB))
    for offset, length, place_in_memory in (
        (0, 1, 0), (1, 4096, 1), (511, 513, 3), (4096, 4096, 8), (4095, 2, 0), (MIB - 1, MIB + 2, 5),
        (size_bytes - 1, 1, 0), (size_bytes - 700, 4096, 7), (size_bytes, 10, 0), (size_bytes + 5000, 10, 0), (5, 0, 0),
    ):  # fmt: skip
        got = source.read_into(offset, memory[place_in_memory : place_in_memory + length])
        expected = image.content[offset : offset + length]
        assert got == len(expected)
        assert memory[place_in_memory : place_in_memory + got] == expected
    ranges = np.array([(4096 * 7, 4096, 0), (4096 * 3, 8192, 4096), (size_bytes - 10, 10, 12288)], RANGE)
    out = np.zeros(12298 + 1, np.uint8)[1:]
    source.reread(ranges, out.data)
    expected = b"".join(bytes(image.content[offset : offset + length]) for offset, length, _ in ranges.tolist())
    assert out.tobytes() == expected
    source.close()


def test_tmpfs_reads_directly_or_says_that_it_does_not(tmp_path: Path, make_tmpfs: object) -> None:
    folder = make_tmpfs(8 * MIB)  # type: ignore[operator]
    image = make_incompressible_image(3 * MIB + 1, seed=1)
    image.save(folder / "image.raw")
    repository = make_repository()
    try:
        manifest = back_up_directly(repository, str(folder / "image.raw"))
    except ImageError as error:
        skip_without("direct", str(error))
    assert_restores(repository, manifest, image.content)  # type: ignore[arg-type]
