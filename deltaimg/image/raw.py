# SPDX-License-Identifier: Apache-2.0
"""Flat files and block devices as sources.

A backup must not push the host's own working set out of the page cache: each read first asks which pages are cached
already; only what had to come from the disk is dropped again afterwards, page for page. The kernel's read-ahead is off
for that reason: it would bring in pages that the next read takes for the host's own, so that they stay. Spans of
megabytes on several threads keep a disk busy without it, at about nine tenths of the speed.
"""

from __future__ import annotations

import array
import errno
import mmap
import os

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import Ranges
from deltaimg.errors import ImageError, UnsupportedImage
from deltaimg.image.block_devices import read_device_bytes, read_sector_bytes
from deltaimg.image.page_cache import PageCache
from deltaimg.kernels import read_ranges
from deltaimg.model import MAX_IMAGE_BYTES

DIRECT_ALIGNMENT = 4096


class RawSource:
    """A regular file."""

    is_sequential = False
    is_device = False

    def __init__(self, path: str, descriptor: int, *, use_holes: bool = True, is_direct: bool = False) -> None:
        self.path = path
        self.size_bytes: int | None = None
        self._descriptor = descriptor
        self._use_holes = use_holes
        self._is_direct = is_direct
        self._asks_cache = not is_direct
        self._cache = PageCache(descriptor)
        self._opened_as = self._identity()
        self.size_bytes = self._find_size()
        if self.size_bytes == 0:
            raise UnsupportedImage(path, "is empty")
        if self.size_bytes > MAX_IMAGE_BYTES:
            raise UnsupportedImage(path, f"is larger than {MAX_IMAGE_BYTES} bytes")
        if not is_direct:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)

    def data_extents(self) -> npt.NDArray[np.int64]:
        size = self.size_bytes or 0
        if not self._use_holes:
            return np.array([[0, size]], np.int64)
        extents = array.array("q")
        position = 0
        while position < size:
            try:
                start = os.lseek(self._descriptor, position, os.SEEK_DATA)
                end = min(os.lseek(self._descriptor, start, os.SEEK_HOLE), size)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    break
                if error.errno in (errno.EINVAL, errno.EOPNOTSUPP) and position == 0:
                    return np.array([[0, size]], np.int64)
                raise self._failure("cannot be searched for holes", error) from error
            if end <= start:
                break
            extents.extend((start, end))
            position = end
        return np.frombuffer(extents, np.int64).reshape(-1, 2) if extents else np.empty((0, 2), np.int64)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        if self._is_direct and len(buffer) % DIRECT_ALIGNMENT:
            return self._read_odd_tail(offset, buffer)
        ours = [] if self._is_direct else self._cache.find_absent(offset, offset + len(buffer))
        got = 0
        if not ours:
            is_done, got = self._read_cached(offset, buffer)
            if is_done:
                return got
            # Not all was cached, though mincore said so, as it does to those who do not own the image.
            ours = [(offset + got, offset + len(buffer))]
        try:
            while got < len(buffer):
                more = os.preadv(self._descriptor, [buffer[got:]], offset + got)
                if more <= 0:
                    break
                got += more
                if self._is_direct and got % DIRECT_ALIGNMENT:
                    break
        except OSError as error:
            raise self._failure(f"cannot be read at byte {offset + got}", error) from error
        if not self._is_direct:
            self._cache.drop(ours)
        return got

    def reread(self, ranges: Ranges, out: memoryview) -> None:
        while len(ranges):
            cached = 0
            if self._asks_cache:
                failed = read_ranges(self._descriptor, ranges, out, only_cached=True)
                if failed is None:
                    return
                # Not every file system has it.
                self._asks_cache = failed.error_number in (0, errno.EAGAIN)
                cached = failed.number
            offset, length, start = ranges[cached].tolist()
            self._reread_uncached(offset, out[start : start + length])
            ranges = ranges[cached + 1 :]

    def _reread_uncached(self, offset: int, buffer: memoryview) -> None:
        if self._is_direct:
            self.read_into(offset, buffer)
            return
        try:
            got = os.preadv(self._descriptor, [buffer], offset)
        except OSError as error:
            raise self._failure(f"cannot be read at byte {offset}", error) from error
        self._cache.drop([(offset, offset + got)])

    def has_changed(self) -> bool:
        return self._identity() != self._opened_as

    def close(self) -> None:
        os.close(self._descriptor)

    def _read_cached(self, offset: int, buffer: memoryview) -> tuple[bool, int]:
        """Read what the page cache holds; return whether that was all, and how much it was."""
        if not self._asks_cache:
            return False, 0
        try:
            got = os.preadv(self._descriptor, [buffer], offset, os.RWF_NOWAIT)
        except BlockingIOError:
            return False, 0
        except OSError:
            # Not every file system has it.
            self._asks_cache = False
            return False, 0
        return got == len(buffer) or offset + got == self.size_bytes, got

    def _read_odd_tail(self, offset: int, buffer: memoryview) -> int:
        """Read directly what ends within a sector: O_DIRECT refuses such lengths, so the last piece takes a detour."""
        whole = len(buffer) // DIRECT_ALIGNMENT * DIRECT_ALIGNMENT
        got = self.read_into(offset, buffer[:whole]) if whole else 0
        if got < whole:
            return got
        with mmap.mmap(-1, DIRECT_ALIGNMENT) as detour:
            more = min(self.read_into(offset + whole, memoryview(detour)), len(buffer) - whole)
            buffer[whole : whole + more] = detour[:more]
        return whole + more

    def _identity(self) -> tuple[int, ...]:
        found = os.fstat(self._descriptor)
        return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)

    def _find_size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def _failure(self, problem: str, error: OSError) -> ImageError:
        return ImageError(self.path, f"{problem}: {os.strerror(error.errno or 0)}")


class BlockDeviceSource(RawSource):
    """A block device. It has no holes, and no time of last change: only its size can be watched."""

    is_device = True

    def __init__(self, path: str, descriptor: int, *, is_direct: bool = False) -> None:
        self.sector_bytes = read_sector_bytes(descriptor)
        super().__init__(path, descriptor, use_holes=False, is_direct=is_direct)

    def _find_size(self) -> int:
        return read_device_bytes(self._descriptor)

    def _identity(self) -> tuple[int, ...]:
        return (os.fstat(self._descriptor).st_rdev, read_device_bytes(self._descriptor))
