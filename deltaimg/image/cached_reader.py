# SPDX-License-Identifier: Apache-2.0
"""Reads what the page cache has from there, all else from the disk, and leaves the cache as it was.

A backup must not push the host's own working set out of it: each read first asks which pages are cached already. What is not
cached at all is read past the cache (O_DIRECT), where the file system says how: without a copy, with less than a fifth of the
processor time. Elsewhere it comes through the cache, and only what had to come from the disk is dropped again, page for page.
The kernel's read-ahead is off for that reason: it would bring in pages that the next read takes for the host's own, so that
they stay. Spans of megabytes on several threads keep a disk busy without it.
"""

from __future__ import annotations

import errno
import os

from deltaimg.arrays import Ranges
from deltaimg.image.direct_reader import DirectReader
from deltaimg.image.page_cache import PageCache
from deltaimg.image.reader import ReadFailure
from deltaimg.kernels import read_ranges
from deltaimg.model import KIB

_LEAST_DIRECT_BYTES = 256 * KIB
"""Less than that is read through the cache: it need not be aligned."""


class CachedReader:
    """Reads an open file or device."""

    def __init__(self, descriptor: int, size_bytes: int, direct: DirectReader | None = None) -> None:
        """Args: direct: reads the same past the cache; None where that cannot be."""
        self._descriptor, self._size_bytes, self._direct = descriptor, size_bytes, direct
        self._cache = PageCache(descriptor)
        self._asks_cache = True
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill `buffer` from `offset`, and drop from the page cache what was not in it before; raises ReadFailure."""
        ours = self._cache.find_absent(offset, offset + len(buffer))
        got = 0
        if not ours:
            is_done, got = self._read_cached(offset, buffer)
            if is_done:
                return got
            # Not all was cached, though mincore said so, as it does to those who do not own the image.
            ours = [(offset + got, offset + len(buffer))]
        elif len(buffer) >= _LEAST_DIRECT_BYTES and _is_all(ours, offset, len(buffer)):
            got = self._read_past_cache(offset, buffer)
        try:
            while got < len(buffer):
                more = os.preadv(self._descriptor, [buffer[got:]], offset + got)
                if more <= 0:
                    break
                got += more
        except OSError as error:
            raise ReadFailure(offset + got, error.errno or 0) from error
        self._cache.drop(ours)
        return got

    def reread(self, ranges: Ranges, out: memoryview) -> None:
        """Fill parts of `out` again, from the page cache where it has them; raises ReadFailure."""
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
        try:
            got = os.preadv(self._descriptor, [buffer], offset)
        except OSError as error:
            raise ReadFailure(offset, error.errno or 0) from error
        self._cache.drop([(offset, offset + got)])

    def _read_past_cache(self, offset: int, buffer: memoryview) -> int:
        """Return how much was read past the page cache: what could not be is read through it, which says where it fails."""
        if self._direct is None:
            return 0
        try:
            return self._direct.read_into(offset, buffer)
        except ReadFailure as failure:
            if failure.error_number == errno.EINVAL:
                self._direct = None  # the file system says how, and cannot do it
            return 0

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
        return got == len(buffer) or offset + got == self._size_bytes, got


def _is_all(stretches: list[tuple[int, int]], offset: int, length: int) -> bool:
    """Return whether one stretch of pages has all of some bytes."""
    return len(stretches) == 1 and stretches[0][0] <= offset and offset + length <= stretches[0][1]
