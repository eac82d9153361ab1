# SPDX-License-Identifier: Apache-2.0
"""Reads past the page cache (O_DIRECT). Offsets, lengths and memory must be aligned; anything else is copied through
aligned memory."""

from __future__ import annotations

import mmap
import os

import numpy as np

from deltaimg.arrays import Ranges
from deltaimg.image.reader import ReadFailure

USUAL_ALIGNMENT = 4096
"""Enough for all but unusual disks and file systems."""
_DETOUR_BYTES = 1 << 20


class DirectReader:
    """Reads a file or device that was opened with O_DIRECT."""

    def __init__(self, descriptor: int, alignment: int) -> None:
        """Args: alignment: of offsets, lengths and memory; a power of two."""
        self._descriptor, self._alignment = descriptor, alignment

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill `buffer` from `offset`, without a copy where both and the length are aligned; raises ReadFailure."""
        if not len(buffer):
            return 0
        address = int(np.frombuffer(buffer, np.uint8).ctypes.data)
        whole = len(buffer) // self._alignment * self._alignment
        if offset % self._alignment or address % self._alignment:
            whole = 0
        got = self._read_aligned(offset, buffer[:whole])
        if got < whole:
            return got
        return got + self._read_by_detour(offset + got, buffer[got:])

    def reread(self, ranges: Ranges, out: memoryview) -> None:
        """Fill parts of `out` again, one by one; raises ReadFailure."""
        for offset, length, start in ranges.tolist():
            self.read_into(offset, out[start : start + length])

    def _read_aligned(self, offset: int, buffer: memoryview) -> int:
        got = 0
        while got < len(buffer):
            try:
                more = os.preadv(self._descriptor, [buffer[got:]], offset + got)
            except OSError as error:
                raise ReadFailure(offset + got, error.errno or 0) from error
            got += more
            if more == 0 or got % self._alignment:
                break  # the end, which need not be aligned
        return got

    def _read_by_detour(self, offset: int, buffer: memoryview) -> int:
        got, is_end = 0, False
        while got < len(buffer) and not is_end:
            position = offset + got
            start = position // self._alignment * self._alignment
            end = -(-min(offset + len(buffer), start + _DETOUR_BYTES) // self._alignment) * self._alignment
            detour = memoryview(mmap.mmap(-1, end - start))
            found = self._read_aligned(start, detour)
            piece = detour[position - start : found][: len(buffer) - got]
            buffer[got : got + len(piece)] = piece
            got += len(piece)
            is_end = found < end - start
        return got
