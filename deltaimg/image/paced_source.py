# SPDX-License-Identifier: Apache-2.0
"""An image that is read no faster than a limit allows, so that a guest on the same disk still gets its share."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

import numpy as np

from deltaimg.arrays import Ranges
from deltaimg.image.extents import Extents
from deltaimg.image.source import ImageSource
from deltaimg.meter import Meter
from deltaimg.model import KIB, Extent
from deltaimg.options.bandwidth import Bandwidth

_PIECE_S = 0.05
_LEAST_PIECE_BYTES = 64 * KIB
"""A multiple of what direct reads are aligned to."""


class PacedSource:
    """Another source, with a limit to what is read of it."""

    def __init__(self, inner: ImageSource, limit: Bandwidth, sleep: Callable[[float], None] = time.sleep) -> None:
        self._inner, self._limit, self._sleep = inner, limit, sleep
        self._meter = Meter(self._find_rate)
        self.path, self.is_sequential, self.is_device = inner.path, inner.is_sequential, inner.is_device

    @property
    def size_bytes(self) -> int | None:
        """Of the other source."""
        return self._inner.size_bytes

    @property
    def unreadable(self) -> tuple[Extent, ...]:
        """Of the other source."""
        return self._inner.unreadable

    def extents(self) -> Extents:
        """Return those of the other source, which are read without a limit."""
        return self._inner.extents()

    def find_writer(self) -> str | None:
        """Return what the other source finds."""
        return self._inner.find_writer()

    def find_change(self) -> str | None:
        """Return what the other source finds."""
        return self._inner.find_change()

    def find_new_size(self) -> int | None:
        """Return what the other source finds."""
        return self._inner.find_new_size()

    def peek(self, length: int) -> bytes:
        """Return the first bytes."""
        return self._inner.peek(length)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill `buffer` from `offset` in pieces that the limit allows; raises ImageError."""
        got = 0
        while got < len(buffer):
            piece = buffer[got : got + self._find_piece_bytes()]
            self._wait_for(len(piece))
            count = self._inner.read_into(offset + got, piece)
            got += count
            if count < len(piece):
                break
        return got

    def reread(self, ranges: Ranges, out: memoryview) -> None:
        """Fill parts of `out` again, in pieces that the limit allows; raises ImageError."""
        lengths = np.cumsum(ranges["length"])
        first = 0
        while first < len(ranges):
            read_bytes = int(lengths[first - 1]) if first else 0
            end = max(first + 1, int(np.searchsorted(lengths, read_bytes + self._find_piece_bytes(), side="right")))
            self._wait_for(int(lengths[end - 1]) - read_bytes)
            self._inner.reread(ranges[first:end], out)
            first = end

    def close(self) -> None:
        """Close the other source."""
        self._inner.close()

    def _find_rate(self) -> float | None:
        return self._limit.rates_at(datetime.now()).received

    def _find_piece_bytes(self) -> int:
        rate = self._find_rate()
        if rate is None:
            return 1 << 30
        return max(_LEAST_PIECE_BYTES, int(rate * _PIECE_S) // _LEAST_PIECE_BYTES * _LEAST_PIECE_BYTES)

    def _wait_for(self, count: int) -> None:
        delay_s = self._meter.take(count)
        if delay_s > 0:
            self._sleep(delay_s)
