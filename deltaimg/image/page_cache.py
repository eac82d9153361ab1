# SPDX-License-Identifier: Apache-2.0
"""Which pages of a file the page cache holds, so that reading an image leaves the cache as it was.

Python's os has no call for it: mincore(2) through ctypes, on a mapping that is never touched, which costs some 50 microseconds
for 2 MiB. It is asked before anything is read: RWF_NOWAIT would answer, too, but starts reading. Only the owner of
a file, or who may write to it, gets the true answer; for others everything is reported as cached.
"""

from __future__ import annotations

import ctypes
import mmap
import os

import numpy as np

_PAGE_BYTES = mmap.PAGESIZE
_FAILED = ctypes.c_void_p(-1).value


class _LibC:
    """The three calls, with their types."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None, use_errno=True)
        self.mmap, self.munmap, self.mincore = library.mmap, library.munmap, library.mincore
        self.mmap.restype = ctypes.c_void_p
        number, address, length = ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t
        self.mmap.argtypes = (address, length, number, number, number, ctypes.c_int64)
        self.munmap.argtypes = (address, length)
        self.mincore.argtypes = (address, length, ctypes.c_char_p)


class PageCache:
    """The cached pages of one open file or block device; any number of threads may use it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._libc = _LibC()

    def find_absent(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return [start, end) of the stretches around bytes [start, end) that are not cached, in whole pages.

        None where that is not known.
        """
        first = start // _PAGE_BYTES * _PAGE_BYTES
        pages = self._ask(first, -(-(end - first) // _PAGE_BYTES))
        if b"\0" not in pages:
            return []
        is_absent = np.frombuffer(pages, np.uint8) & 1 == 0
        edges = np.flatnonzero(np.diff(np.concatenate(([False], is_absent, [False])).astype(np.int8)))
        return [(first + a * _PAGE_BYTES, first + b * _PAGE_BYTES) for a, b in edges.reshape(-1, 2).tolist()]

    def drop(self, stretches: list[tuple[int, int]]) -> None:
        """Drop pages that are neither dirty nor mapped."""
        for start, end in stretches:
            os.posix_fadvise(self._descriptor, start, end - start, os.POSIX_FADV_DONTNEED)

    def _ask(self, first: int, count: int) -> bytes:
        """Return a byte a page, 0 for one that is absent; nothing where it cannot be asked."""
        length = count * _PAGE_BYTES
        address = self._libc.mmap(None, length, mmap.PROT_READ, mmap.MAP_SHARED, self._descriptor, first)
        if address == _FAILED:
            return b""
        try:
            pages = ctypes.create_string_buffer(count)
            return pages.raw if self._libc.mincore(address, length, pages) == 0 else b""
        finally:
            self._libc.munmap(address, length)
