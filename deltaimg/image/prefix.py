# SPDX-License-Identifier: Apache-2.0
"""The first bytes of a source, as a source: what a larger device holds of an image."""

from __future__ import annotations

from deltaimg.arrays import Ranges
from deltaimg.image.extents import Extents
from deltaimg.image.source import ImageSource
from deltaimg.model import Extent

_DRAIN_BYTES = 1 << 20


class PrefixSource:
    """The first `prefix_bytes` of `inner`, which has as many at least, unless it is a stream."""

    def __init__(self, inner: ImageSource, prefix_bytes: int) -> None:
        self._inner, self._prefix_bytes = inner, prefix_bytes
        self.path, self.is_sequential, self.is_device = inner.path, inner.is_sequential, inner.is_device
        self.size_bytes: int | None = None if inner.is_sequential else prefix_bytes

    @property
    def unreadable(self) -> tuple[Extent, ...]:
        """What could not be read of the inner source so far."""
        return self._inner.unreadable

    def peek(self, length: int) -> bytes:
        """Return the first bytes, at most those of the prefix."""
        return self._inner.peek(min(length, self._prefix_bytes))

    def extents(self) -> Extents:
        """Return the inner source's extents, cut at the end of the prefix."""
        return self._inner.extents().clip(self._prefix_bytes)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill `buffer` from `offset`, as far as the prefix goes."""
        left = self._prefix_bytes - offset
        got = self._inner.read_into(offset, buffer[:left]) if left > 0 else 0
        if self.is_sequential and (got == left or self._inner.size_bytes is not None):
            self.size_bytes = offset + got
        return got

    def count_tail_bytes(self) -> int:
        """Return how many bytes follow; of a stream, which is read to its end."""
        if self.is_sequential:
            position, buffer = self._prefix_bytes, memoryview(bytearray(_DRAIN_BYTES))
            while self._inner.size_bytes is None:
                position += self._inner.read_into(position, buffer)
        return max(0, (self._inner.size_bytes or 0) - self._prefix_bytes)

    def reread(self, ranges: Ranges, out: memoryview) -> None:
        """Fill parts of `out` again; all of them are inside the prefix."""
        self._inner.reread(ranges, out)

    def find_writer(self) -> str | None:
        """Return what may write to the inner source."""
        return self._inner.find_writer()

    def find_change(self) -> str | None:
        """Return how the inner source was changed."""
        return self._inner.find_change()

    def find_new_size(self) -> int | None:
        """Return None: how much of the inner source is the image is known otherwise."""
        return None

    def close(self) -> None:
        """Close the inner source."""
        self._inner.close()
