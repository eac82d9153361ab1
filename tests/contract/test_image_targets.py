# SPDX-License-Identifier: Apache-2.0
"""What every image target promises: a new file, one that replaces another, a block device, a stream."""

from __future__ import annotations

import itertools
import os
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from deltaimg.arrays import RANGE, Ranges
from deltaimg.errors import ImageError
from deltaimg.image.open_target import open_target
from deltaimg.image.stream_target import StreamTarget
from deltaimg.image.target import ImageTarget
from deltaimg.model import KIB, MIB
from tests.support.images import SyntheticImage, make_mixed_image
from tests.support.repositories import assert_same_bytes

KINDS = ["new file", "replaced file", "device", "stream"]
PIECE = 64 * KIB
OLD = b"\xaa"


@dataclass
class Opened:
    target: ImageTarget
    image: SyntheticImage
    read: Callable[[], bytes]
    """Returns what is at the target after its end."""
    old: bytes
    """What was there before."""


@pytest.fixture(params=KINDS)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opened]:
    """A place for an image of 1 MiB and 2,560 bytes."""
    image = make_mixed_image(MIB + 2560, seed=21)
    path = tmp_path / "image.raw"
    old = b"" if request.param in ("new file", "stream") else OLD * (2 * MIB)
    if old:
        path.write_bytes(old)
    with ExitStack() as stack:
        if request.param == "stream":
            target, read = _open_stream(stack)
        elif request.param == "device":
            make_loop: Callable[[Path], str] = request.getfixturevalue("make_loop")
            device = make_loop(path)
            target, read = open_target(device, image.size_bytes, is_forced=True), Path(device).read_bytes
        else:
            target = open_target(str(path), image.size_bytes, is_forced=bool(old))

            def read() -> bytes:
                return path.read_bytes() if path.exists() else b""

        stack.callback(target.abort)
        yield Opened(target, image, read, old)


def _open_stream(stack: ExitStack) -> tuple[ImageTarget, Callable[[], bytes]]:
    """Return a target that writes to a pipe, and what has come out of it once the target has ended."""
    reading, writing = os.pipe()
    pieces: list[bytes] = []

    def drain() -> None:
        with os.fdopen(reading, "rb") as pipe:
            pieces.append(pipe.read())

    reader = threading.Thread(target=drain)
    reader.start()
    target = StreamTarget(writing, "pipe", is_owned=True)
    stack.callback(reader.join)

    def read() -> bytes:
        reader.join()
        return b"".join(pieces)

    return target, read


def write_in_order(opened: Opened) -> None:
    """Write data, and clear what is not allocated, front to back."""
    target, image = opened.target, opened.image
    data = list(image.extents())
    edges = [0, *(edge for extent in data for edge in extent), image.size_bytes]
    for number, (start, end) in enumerate(itertools.pairwise(edges)):
        if number % 2 and end > start:
            target.write(start, memoryview(image.content)[start:end])
        elif end > start:
            target.clear(start, end - start)


def ranges_of(offsets: list[int], length: int, size_bytes: int) -> Ranges:
    """Return ranges that bring pieces of an image to their offsets from memory that has the whole image."""
    return np.array([(offset, min(length, size_bytes - offset), offset) for offset in offsets], RANGE)


def test_an_image_that_is_written_in_order_is_there_after_the_commit(opened: Opened) -> None:
    write_in_order(opened)
    opened.target.commit()
    found = opened.read()
    assert_same_bytes(found[: opened.image.size_bytes], opened.image.content)
    is_device = opened.target.device_bytes is not None
    assert found[opened.image.size_bytes :] == (opened.old[opened.image.size_bytes :] if is_device else b"")


def test_any_thread_may_write_anywhere(opened: Opened) -> None:
    target, image = opened.target, opened.image
    if target.is_sequential:
        with pytest.raises(ImageError):
            target.write_ranges(ranges_of([0], PIECE, image.size_bytes), memoryview(image.content))
        return
    offsets = list(range(0, image.size_bytes, PIECE))
    random.Random(22).shuffle(offsets)
    groups = [offsets[number::4] for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        content = memoryview(image.content)
        list(pool.map(lambda group: target.write_ranges(ranges_of(group, PIECE, image.size_bytes), content), groups))
    target.commit()
    assert_same_bytes(opened.read()[: image.size_bytes], image.content)


def test_what_was_written_can_be_read_back(opened: Opened) -> None:
    target, image = opened.target, opened.image
    out = memoryview(bytearray(image.size_bytes))
    ranges = ranges_of([0, 8 * PIECE, 3 * PIECE], PIECE, image.size_bytes)
    if target.is_sequential:
        with pytest.raises(ImageError):
            target.read_back(ranges, out)
        return
    write_in_order(opened)
    target.read_back(ranges, out)
    for offset, length, start in ranges.tolist():
        assert_same_bytes(bytes(out[start : start + length]), bytes(image.content[offset : offset + length]))


def test_nothing_that_looks_like_an_image_is_left_after_an_abort(opened: Opened) -> None:
    opened.target.write(0, memoryview(b"x" * 4096))
    opened.target.abort()
    opened.target.abort()
    if opened.target.is_sequential or opened.target.device_bytes is not None:
        return  # what is written is written
    assert opened.read() == opened.old
    assert len(os.listdir(os.path.dirname(opened.target.path))) == bool(opened.old)


def test_an_abort_after_the_commit_changes_nothing(opened: Opened) -> None:
    write_in_order(opened)
    opened.target.commit()
    opened.target.abort()
    assert_same_bytes(opened.read()[: opened.image.size_bytes], opened.image.content)


def test_properties_say_what_kind_it_is(opened: Opened, request: pytest.FixtureRequest) -> None:
    kind = request.node.callspec.params["opened"]
    assert opened.target.is_sequential == (kind == "stream")
    assert (opened.target.device_bytes is not None) == (kind == "device")
    assert (opened.target.folder is not None) == kind.endswith("file")
    free_bytes = opened.target.find_free_bytes()
    assert (free_bytes is not None) == kind.endswith("file")
    assert opened.target.warnings == []
    assert opened.target.path


def test_an_image_may_turn_out_larger(opened: Opened) -> None:
    size_bytes = opened.image.size_bytes + PIECE
    opened.target.grow(size_bytes)
    write_in_order(opened)
    opened.target.write(opened.image.size_bytes, memoryview(b"y" * PIECE))
    opened.target.commit()
    assert opened.read()[:size_bytes] == bytes(opened.image.content) + b"y" * PIECE
