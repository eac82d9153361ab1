# SPDX-License-Identifier: Apache-2.0
"""What is not cached is read past the page cache where that can be, and as right in all other cases."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from deltaimg.file_status import read_file_status
from deltaimg.image.cached_reader import CachedReader
from deltaimg.image.direct_reader import DirectReader
from deltaimg.image.open_source import open_source
from deltaimg.image.reader import ReadFailure
from deltaimg.model import KIB, MIB
from tests.support.components import skip_without
from tests.unit.image.test_page_cache import cached_pages, drop, warm

SIZE_BYTES = 8 * MIB + 1000


class Counted(DirectReader):
    """Notes how much was read past the cache, and fails where it is told to."""

    def __init__(self, descriptor: int, error_number: int = 0) -> None:
        super().__init__(descriptor, 4096)
        self.error_number, self.calls, self.got = error_number, 0, 0

    def read_into(self, offset: int, buffer: memoryview) -> int:
        self.calls += 1
        if self.error_number:
            raise ReadFailure(offset, self.error_number)
        got = super().read_into(offset, buffer)
        self.got += got
        return got


class Image:
    """A file on a disk, none of it cached, and two descriptors of it."""

    def __init__(self, path: Path) -> None:
        self.path, self.content = path, os.urandom(SIZE_BYTES)
        path.write_bytes(self.content)
        self.cached = os.open(path, os.O_RDONLY)
        self.direct = os.open(path, os.O_RDONLY | os.O_DIRECT)
        os.fsync(self.cached)

    def read(self, direct: DirectReader | None, offset: int = 0, length: int = SIZE_BYTES) -> CachedReader:
        """Read, compare, and return what read."""
        reader, memory = CachedReader(self.cached, SIZE_BYTES, direct), memoryview(mmap.mmap(-1, length))
        assert reader.read_into(offset, memory) == min(length, SIZE_BYTES - offset)
        assert bytes(memory[: SIZE_BYTES - offset]) == self.content[offset : offset + length]
        return reader


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Image]:
    try:
        made = Image(tmp_path / "vm1.raw")
    except OSError:
        skip_without("cache", "this file system has no direct reads")
    drop(made.path)
    if cached_pages(made.path).any():
        skip_without("cache", "this file system does not let go of its pages")
    yield made
    os.close(made.cached)
    os.close(made.direct)


@pytest.mark.parametrize("offset", [0, MIB, 4 * KIB])
def test_what_is_not_cached_is_read_past_the_cache(image: Image, offset: int) -> None:
    direct = Counted(image.direct)
    image.read(direct, offset)
    assert direct.got == SIZE_BYTES - offset
    assert not cached_pages(image.path).any()


def test_what_is_cached_is_read_from_there_and_stays(image: Image) -> None:
    direct = Counted(image.direct)
    warm(image.path, 5 * MIB, 4 * KIB)
    image.read(direct)
    assert direct.calls == 0
    assert cached_pages(image.path).sum() == 1
    image.read(direct, 0, 4 * MIB)
    assert direct.got == 4 * MIB
    with open(image.path, "r+b") as file:
        file.write(b"new")  # and not written to the disk yet
    image.content = b"new" + image.content[3:]
    image.read(direct, 0, 4 * MIB)
    assert direct.got == 4 * MIB


def test_what_is_short_or_lies_anywhere_is_read_all_the_same(image: Image) -> None:
    direct = Counted(image.direct)
    image.read(direct, 0, 4 * KIB)
    assert direct.calls == 0
    image.read(direct, 1001, 3 * MIB + 7)
    image.read(direct, 8 * MIB + 999, 300 * KIB)
    assert cached_pages(image.path).sum() <= 2


@pytest.mark.parametrize(("error_number", "calls"), [(errno.EINVAL, 1), (errno.EIO, 2)])
def test_where_it_cannot_be_read_past_the_cache_it_is_read_through_it(
    image: Image, error_number: int, calls: int
) -> None:
    """EINVAL says that it never can be; another error that there is damage, of which the cache names the byte."""
    direct = Counted(image.direct, error_number)
    reader = image.read(direct)
    assert reader.read_into(0, memoryview(mmap.mmap(-1, MIB))) == MIB
    assert direct.calls == calls
    assert not cached_pages(image.path).any()
    image.read(None)


def test_a_source_reads_past_the_cache_where_the_file_system_says_how(
    image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not read_file_status(image.cached).direct_alignment:
        skip_without("cache", "this system does not say how it reads directly")
    made: list[int] = []
    read_into = DirectReader.read_into
    monkeypatch.setattr(
        DirectReader, "read_into", lambda reader, *rest: made.append(read_into(reader, *rest)) or made[-1]
    )
    with closing(open_source(str(image.path))) as source:
        assert source.read_into(0, memoryview(mmap.mmap(-1, 4 * MIB))) == 4 * MIB
    assert made == [4 * MIB]
