# SPDX-License-Identifier: Apache-2.0
"""Small disk images, made from a seed: their bytes, and which 4 KiB pages of them are allocated.

Always  an unallocated page reads as zeros, as a hole in a file does.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import numpy as np

from deltaimg.image.extents import DATA, HOLE, Extents
from deltaimg.model import KIB, Extent

PAGE = 4 * KIB


class SyntheticImage:
    """Bytes and holes that tests edit; saved as a sparse file, or read in place by `SyntheticSource`."""

    def __init__(self, size_bytes: int, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.content = bytearray(size_bytes)
        self.allocated = bytearray(_pages(size_bytes))

    @property
    def size_bytes(self) -> int:
        return len(self.content)

    def copy(self) -> SyntheticImage:
        other = SyntheticImage(0)
        other.random.setstate(self.random.getstate())
        other.content, other.allocated = bytearray(self.content), bytearray(self.allocated)
        return other

    # -- edits -------------------------------------------------------------------------------------------------------

    def write(self, offset: int, data: bytes) -> None:
        """Put `data` at `offset`, as far as the image goes."""
        data = data[: max(0, self.size_bytes - offset)]
        self.content[offset : offset + len(data)] = data
        self._mark(offset, len(data), 1)

    def write_random(self, offset: int, length: int) -> None:
        """Put `length` bytes that do not compress at `offset`."""
        self.write(offset, self.random.randbytes(length))

    def write_pages(self, offset: int, length: int) -> None:
        """Put `length` bytes at `offset` as a database would: pages alike but for their numbers and some fields."""
        pages = b"".join(
            (b"PAGE%012d" % self.random.randrange(10**11)).ljust(64, b"\x01") + bytes([page & 7]) * (PAGE - 64)
            for page in range(_pages(length))
        )
        self.write(offset, pages[:length])

    def zero(self, offset: int, length: int) -> None:
        """Write zeros, which stay allocated."""
        self.write(offset, bytes(length))

    def punch(self, offset: int, length: int) -> None:
        """Deallocate all whole pages of a range, and zero the rest of it."""
        self.zero(offset, length)
        end = min(offset + length, self.size_bytes)
        if end == self.size_bytes:
            end = _pages(end) * PAGE
        for page in range(-(-offset // PAGE), end // PAGE):
            self.allocated[page] = 0

    def move(self, source: int, target: int, length: int) -> None:
        """Copy a range elsewhere and free where it was."""
        data = bytes(self.content[source : source + length])
        self.punch(source, length)
        self.write(target, data)

    def resize(self, size_bytes: int) -> None:
        """Cut the image, or let it grow by a hole."""
        self.content[size_bytes:] = b""
        self.allocated[_pages(size_bytes) :] = b""
        self.content.extend(bytes(size_bytes - len(self.content)))
        self.allocated.extend(bytes(_pages(size_bytes) - len(self.allocated)))

    # -- views -------------------------------------------------------------------------------------------------------

    def extents(self) -> Iterator[tuple[int, int]]:
        """Yield [start, end) in bytes of what is allocated."""
        start = None
        for page, is_allocated in enumerate(self.allocated):
            if is_allocated and start is None:
                start = page * PAGE
            elif not is_allocated and start is not None:
                yield start, page * PAGE
                start = None
        if start is not None:
            yield start, self.size_bytes

    def save(self, path: str | os.PathLike[str]) -> str:
        """Write a new sparse file, with its holes exactly where `allocated` says."""
        with open(path, "wb") as file:
            file.truncate(self.size_bytes)
            for start, end in self.extents():
                file.seek(start)
                file.write(memoryview(self.content)[start:end])
        return os.fspath(path)

    def _mark(self, offset: int, length: int, value: int) -> None:
        if length > 0:
            first, end = offset // PAGE, _pages(offset + length)
            self.allocated[first:end] = bytes([value]) * (end - first)


class SyntheticSource:
    """An `ImageSource` over a `SyntheticImage`, without a file. `is_changed` and `fail_at` are for tests to set."""

    is_sequential = False
    is_device = False
    unreadable: tuple[Extent, ...] = ()

    def __init__(self, image: SyntheticImage, path: str = "synthetic.raw") -> None:
        self.path = path
        self.size_bytes: int | None = image.size_bytes
        self.is_changed = False
        self.fail_at: int | None = None
        self.error: BaseException = RuntimeError("the test set no error")
        self._content = bytes(image.content)
        data = np.array(list(image.extents()), np.int64).reshape(-1, 2)
        self._extents = Extents.from_bounds(data, image.size_bytes, inside=DATA, outside=HOLE)

    def peek(self, length: int) -> bytes:
        return self._content[:length]

    def extents(self) -> Extents:
        return self._extents

    def read_into(self, offset: int, buffer: memoryview) -> int:
        if self.fail_at is not None and offset <= self.fail_at < offset + len(buffer):
            raise self.error
        piece = self._content[offset : offset + len(buffer)]
        buffer[: len(piece)] = piece
        return len(piece)

    def reread(self, ranges: np.ndarray, out: memoryview) -> None:
        for offset, length, start in ranges.tolist():
            self.read_into(offset, out[start : start + length])

    def find_writer(self) -> str | None:
        return None

    def find_change(self) -> str | None:
        return "was written to while it was read" if self.is_changed else None

    def find_new_size(self) -> int | None:
        return None

    def close(self) -> None: ...


def make_mixed_image(size_bytes: int, seed: int = 0) -> SyntheticImage:
    """Return an image with some of everything: random data, database pages, text, allocated zeros and holes."""
    image = SyntheticImage(size_bytes, seed)
    step = max(PAGE, size_bytes // 16 // PAGE * PAGE)
    makers = (image.write_random, image.write_pages, _write_text, image.zero, None)
    for number, offset in enumerate(range(0, size_bytes, step)):
        maker = makers[number % len(makers)]
        if maker is _write_text:
            _write_text(image, offset, step)
        elif maker is not None:
            maker(offset, step)
    return image


def make_incompressible_image(size_bytes: int, seed: int = 0) -> SyntheticImage:
    """Return an image without any structure."""
    image = SyntheticImage(size_bytes, seed)
    image.write_random(0, size_bytes)
    return image


def make_rows(first: int, count: int) -> bytes:
    """Return rows of 64 bytes with two counters: regular content, of which zstd makes far more than deltaimg's codec."""
    chance = random.Random(first)
    words = [chance.randbytes(48) for _ in range(40)]
    rows = range(first, first + count)
    return b"".join(row.to_bytes(8, "little") + (row * 1000).to_bytes(8, "little") + words[row % 40] for row in rows)


def make_database_image(size_bytes: int, seed: int = 0) -> SyntheticImage:
    """Return an image full of pages that are alike and never equal."""
    image = SyntheticImage(size_bytes, seed)
    image.write_pages(0, size_bytes)
    return image


def edit_at_random(image: SyntheticImage, edits: int = 6) -> None:
    """Change an image as a day of work does: writes at odd offsets, zeros, holes, moved data."""
    for _ in range(edits):
        length = image.random.choice((1, 700, PAGE, 3 * PAGE, 20 * PAGE))
        offset = image.random.randrange(max(1, image.size_bytes - length))
        aligned = offset // PAGE * PAGE
        kind = image.random.randrange(5)
        if kind == 0:
            image.write_random(offset, length)
        elif kind == 1:
            image.write_pages(aligned, length)
        elif kind == 2:
            image.zero(aligned, length)
        elif kind == 3:
            image.punch(offset, length)
        else:
            image.move(aligned, image.random.randrange(_pages(image.size_bytes)) * PAGE, length)


def _write_text(image: SyntheticImage, offset: int, length: int) -> None:
    words = [b"alpha ", b"bravo ", b"charlie ", b"delta ", b"echo\n"]
    text = b"".join(image.random.choices(words, k=length // 4))
    image.write(offset, text[:length].ljust(length, b"."))


def _pages(size_bytes: int) -> int:
    return -(-size_bytes // PAGE)
