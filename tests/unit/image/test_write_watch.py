# SPDX-License-Identifier: Apache-2.0
"""What is noticed of writes to a source, and that reading it, and writing beside it, never counts."""

from __future__ import annotations

import mmap
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deltaimg.image.open_source import open_source
from deltaimg.image.source import ImageSource
from deltaimg.model import MIB
from tests.support.components import requires_program, run_or_skip
from tests.support.devices import make_ext4, mounted, partition

BYTES = 4 * MIB


@contextmanager
def watched(path: str | Path, *, is_direct: bool = False) -> Iterator[ImageSource]:
    source = open_source(str(path), is_direct=is_direct)
    try:
        yield source
    finally:
        source.close()


def write(path: str | Path, data: bytes = b"NEW", offset: int = 0, flags: int = 0) -> None:
    descriptor = os.open(path, os.O_WRONLY | flags)
    os.pwrite(descriptor, data, offset)
    os.close(descriptor)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "image.raw"
    path.write_bytes(os.urandom(BYTES))
    return path


@pytest.fixture
def device(file: Path, make_loop: Callable[[Path], str]) -> str:
    return make_loop(file)


# -- files -------------------------------------------------------------------------------------------------------------


def put_time_back(path: Path) -> None:
    before = path.stat()
    write(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def write_through_a_map(path: Path) -> None:
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), BYTES) as memory:
        memory[:3] = b"NEW"


def shrink_and_grow(path: Path) -> None:
    os.truncate(path, 100)
    os.truncate(path, BYTES)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (write, "was written to while it was read"),
        (put_time_back, "its ctime moved, though its mtime did not"),
        (write_through_a_map, "was written to"),
        (shrink_and_grow, "was written to"),
        (lambda path: os.truncate(path, 100), "changed its size"),
        (lambda path: path.chmod(0o600), "its ctime moved"),
    ],
    ids=["write", "time put back", "memory map", "cut and grown", "cut", "chmod"],
)
def test_a_change_to_a_file_is_noticed(file: Path, change: Callable[[Path], None], said: str) -> None:
    with watched(file) as source:
        change(file)
        assert said in (source.find_change() or "")


def test_a_write_right_after_another_is_noticed(file: Path) -> None:
    """Times of files are those of the kernel's last tick: a write in the tick of the one before it has the same time."""
    for number in range(20):
        write(file, bytes([number]))
        with watched(file) as source:
            write(file, bytes([number + 1]))
            assert source.find_change() is not None


@pytest.mark.parametrize("is_direct", [False, True])
def test_reading_a_file_is_no_change(file: Path, is_direct: bool) -> None:
    with watched(file, is_direct=is_direct) as source:
        source.read_into(0, memoryview(mmap.mmap(-1, BYTES)))
        subprocess.run(["cmp", file, file], check=True)
        file.read_bytes()
        assert source.find_change() is None


# -- devices -----------------------------------------------------------------------------------------------------------


def test_a_buffered_write_to_a_device_is_noticed_before_it_is_written_out(device: str) -> None:
    with watched(device) as source:
        write(device)
        assert source.find_change() == "was written to while it was read"


def test_a_direct_write_to_a_device_is_noticed(device: str) -> None:
    with watched(device) as source:
        descriptor = os.open(device, os.O_WRONLY | os.O_DIRECT)
        os.pwritev(descriptor, [mmap.mmap(-1, 4096)], MIB)
        os.close(descriptor)
        assert source.find_change() == "was written to while it was read"


def test_a_discard_is_noticed(device: str) -> None:
    with watched(device) as source:
        run_or_skip("discard", requires_program("blkdiscard"), "--offset", str(MIB), "--length", str(MIB), device)
        assert source.find_change() is not None


def test_a_write_to_the_file_behind_a_device_is_noticed(device: str, file: Path) -> None:
    with watched(device) as source:
        write(file)
        assert "lies on a file that was written to" in (source.find_change() or "")


def test_a_device_that_is_resized_is_noticed(device: str, file: Path) -> None:
    with watched(device) as source:
        os.truncate(file, 2 * BYTES)
        subprocess.run(["losetup", "--set-capacity", device], check=True)
        assert f"from {BYTES} to {2 * BYTES} bytes" in (source.find_change() or "")


@pytest.mark.parametrize("is_direct", [False, True])
def test_reading_a_device_is_no_change(device: str, is_direct: bool) -> None:
    with watched(device, is_direct=is_direct) as source:
        source.read_into(0, memoryview(mmap.mmap(-1, BYTES)))
        Path(device).read_bytes()
        assert source.find_change() is None


def test_what_was_written_before_and_waits_in_memory_is_no_change(device: str) -> None:
    writer = os.open(device, os.O_WRONLY)  # whose close would write it out
    os.pwrite(writer, os.urandom(MIB), 0)
    with watched(device) as source:
        source.read_into(0, memoryview(mmap.mmap(-1, BYTES)))
        os.sync()
        assert source.find_change() is None
    os.close(writer)


def test_mounting_read_only_is_no_change(device: str, tmp_path: Path) -> None:
    make_ext4(device)
    with watched(device) as source:
        with mounted(device, tmp_path / "m", "-r") as folder:
            os.listdir(folder)
        assert source.find_change() is None


def test_a_partition_is_watched_through_its_disk_as_well(device: str) -> None:
    with partition(device, MIB, MIB) as part, watched(part) as source:
        write(part)
        assert source.find_change() is not None
    with partition(device, MIB, MIB) as part, watched(part) as source:
        write(device, offset=MIB + 4096)
        os.sync()
        assert source.find_change() is not None
    with partition(device, MIB, MIB) as part, watched(device) as source:
        write(part)
        os.sync()
        assert source.find_change() is not None


def test_what_is_written_to_another_partition_is_no_change(device: str) -> None:
    with (
        partition(device, MIB, MIB) as part,
        partition(device, 2 * MIB, MIB, number=2) as other,
        watched(part) as source,
    ):
        for number in range(20):
            write(other, bytes([number]))
            os.sync()
            time.sleep(0.005)
        # The file behind the loop device changed, of course, which a disk would not have.
        assert (source.find_change() or "lies on a file").startswith("lies on a file")
