# SPDX-License-Identifier: Apache-2.0
"""What every image source promises: a raw file, one read directly or to salvage, a block device, streams, a prefix, exports."""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from deltaimg.arrays import RANGE
from deltaimg.engine.backup.run import back_up
from deltaimg.errors import ImageError
from deltaimg.image.command import CommandSource
from deltaimg.image.extents import DATA, HOLE
from deltaimg.image.open_source import open_source
from deltaimg.image.prefix import PrefixSource
from deltaimg.image.source import ImageSource
from deltaimg.image.stream import StreamSource
from deltaimg.model import KIB, MAX_IMAGE_BYTES, MIB
from deltaimg.options.backup import BackupOptions
from tests.support.components import skip_without
from tests.support.images import SyntheticImage, SyntheticSource, make_mixed_image
from tests.support.nbd import nbdkit, qemu_nbd
from tests.support.repositories import assert_restores, assert_same_bytes, make_repository

SPAN = 256 * KIB
KINDS = [
    "raw",
    "raw without holes",
    "direct",
    "salvaging",
    "device",
    "stream",
    "command",
    "prefix",
    "prefix of a stream",
    "synthetic",
    "export of qemu-nbd",
    "export of nbdkit",
    "export read in blocks of 512",
    "export without structured replies",
]
NBDKIT = {
    "export of nbdkit": (),
    "export read in blocks of 512": (
        "--filter=blocksize-policy",
        "blocksize-minimum=512",
        "blocksize-preferred=4096",
        "blocksize-maximum=65536",
        "blocksize-error-policy=error",
    ),
    "export without structured replies": ("--no-sr",),
}


@dataclass
class Opened:
    source: ImageSource
    image: SyntheticImage


@pytest.fixture(params=KINDS)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opened]:
    """An image of 3 MiB and 2,560 bytes, through each kind of source."""
    image = make_mixed_image(3 * MIB + 2560, seed=1)
    path = Path(image.save(tmp_path / "image.raw"))
    with ExitStack() as stack:
        source = _open(request, stack, path, image)
        stack.callback(source.close)
        yield Opened(source, image)


def _open(request: pytest.FixtureRequest, stack: ExitStack, path: Path, image: SyntheticImage) -> ImageSource:
    if request.param == "device":
        make_loop: Callable[[Path], str] = request.getfixturevalue("make_loop")
        return open_source(make_loop(path))
    if request.param == "stream":
        return StreamSource(_pipe(stack, path.read_bytes()))
    if request.param == "command":
        return CommandSource(f"cat '{path}'")
    if request.param == "prefix of a stream":
        return PrefixSource(StreamSource(_pipe(stack, path.read_bytes() + b"tail" * 1000)), image.size_bytes)
    if request.param == "prefix":
        longer = path.with_name("longer.raw")
        longer.write_bytes(path.read_bytes() + b"tail" * 1000)
        return PrefixSource(open_source(str(longer)), image.size_bytes)
    if request.param == "synthetic":
        return SyntheticSource(image)
    if request.param == "export of qemu-nbd":
        return open_source(stack.enter_context(qemu_nbd(path.parent, path)))
    if request.param in NBDKIT:
        return open_source(stack.enter_context(nbdkit(path.parent, "file", path, *NBDKIT[request.param])))
    if request.param == "salvaging":
        return open_source(str(path), is_salvaging=True)
    try:
        return open_source(
            str(path), use_holes=request.param != "raw without holes", is_direct=request.param == "direct"
        )
    except ImageError as error:
        if "no direct I/O" in str(error):
            skip_without("direct", str(error))
        raise


def _pipe(stack: ExitStack, data: bytes) -> int:
    """Return the reading end of a pipe that brings `data` in pieces of odd sizes."""
    reading, writing = os.pipe()

    def feed() -> None:
        with suppress(BrokenPipeError), os.fdopen(writing, "wb", buffering=0) as pipe:
            for start in range(0, len(data), 50_001):
                pipe.write(data[start : start + 50_001])

    feeder = threading.Thread(target=feed)
    feeder.start()
    stack.callback(feeder.join)
    stack.callback(os.close, reading)  # before the join, so that a feeder that waits wakes
    return reading


def read_all(source: ImageSource) -> bytes:
    """Read a source front to back through an aligned buffer, holes included."""
    buffer = memoryview(mmap.mmap(-1, SPAN))
    content = bytearray()
    while True:
        wanted = SPAN if source.size_bytes is None else min(SPAN, source.size_bytes - len(content))
        got = source.read_into(len(content), buffer[:wanted])
        content += buffer[:got]
        if got < SPAN or len(content) == source.size_bytes:
            return bytes(content)


def test_every_byte_is_read(opened: Opened) -> None:
    assert_same_bytes(read_all(opened.source), opened.image.content)


def test_the_size_is_known_before_or_at_the_end(opened: Opened) -> None:
    if opened.source.is_sequential:
        assert opened.source.size_bytes is None
        read_all(opened.source)
    assert opened.source.size_bytes == opened.image.size_bytes


def test_extents_cover_the_image_and_holes_are_zeros(opened: Opened) -> None:
    extents = opened.source.extents()
    assert extents.size_bytes in (opened.image.size_bytes, MAX_IMAGE_BYTES if opened.source.is_sequential else None)
    end = 0
    for each in extents:
        assert each.start == end
        assert each.start < each.end
        assert each.status in (DATA, HOLE)
        if each.status == HOLE:
            assert not any(opened.image.content[each.start : each.end])
        end = each.end
    assert end == extents.size_bytes


def test_an_untouched_source_has_not_changed(opened: Opened) -> None:
    read_all(opened.source)
    assert opened.source.find_change() is None


def test_a_backup_of_it_restores(opened: Opened) -> None:
    repository = make_repository()
    manifest = back_up(repository, opened.source, "vm1", BackupOptions(workers=2))
    assert manifest.size_bytes == opened.image.size_bytes
    assert manifest.source == opened.source.path
    assert_restores(repository, manifest, opened.image.content)


def test_the_first_bytes_can_be_looked_at_before_all_is_read(opened: Opened) -> None:
    for length in (100, 10):
        assert opened.source.peek(length) == opened.image.content[:length]
    assert_same_bytes(read_all(opened.source), opened.image.content)


def test_everything_could_be_read(opened: Opened) -> None:
    read_all(opened.source)
    assert opened.source.unreadable == ()


def test_what_was_read_can_be_read_again_where_it_is_no_stream(opened: Opened) -> None:
    if opened.source.is_sequential:
        return
    out = memoryview(mmap.mmap(-1, 2 * SPAN))
    ranges = np.array([(SPAN, 4096, 4096), (0, 512, 0), (2 * MIB, SPAN, SPAN)], RANGE)
    opened.source.reread(ranges, out)
    for offset, length, start in ranges.tolist():
        assert_same_bytes(bytes(out[start : start + length]), bytes(opened.image.content[offset : offset + length]))


def test_any_thread_may_read_at_any_offset_where_it_is_no_stream(opened: Opened) -> None:
    if opened.source.is_sequential:
        return

    def read(start: int) -> bool:
        buffer = memoryview(mmap.mmap(-1, SPAN))
        got = opened.source.read_into(start, buffer)
        return bytes(buffer[:got]) == opened.image.content[start : start + SPAN]

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(0, opened.image.size_bytes, SPAN)))
