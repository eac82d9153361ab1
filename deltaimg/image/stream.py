# SPDX-License-Identifier: Apache-2.0
"""The standard input, or a named pipe, as a source: read once, front to back, its size known when it ends."""

from __future__ import annotations

import os

from deltaimg.arrays import Ranges
from deltaimg.descriptors import describe_failure, read_some
from deltaimg.errors import ImageError, UnsupportedImage
from deltaimg.image.extents import Extents
from deltaimg.model import MAX_IMAGE_BYTES, Extent


class StreamSource:
    """A pipe, or whatever else stands behind a descriptor."""

    is_sequential = True
    is_device = False
    unreadable: tuple[Extent, ...] = ()

    def __init__(self, descriptor: int, path: str = "-", *, is_owned: bool = False) -> None:
        """Args: is_owned: close the descriptor at the end."""
        self.path = path
        self.size_bytes: int | None = None
        self._descriptor, self._is_owned = descriptor, is_owned
        self._position = 0
        self._peeked, self._is_at_end = b"", False
        if os.isatty(descriptor):
            raise UnsupportedImage(self.path, "the standard input is a terminal", hint="pipe an image into it")

    def extents(self) -> Extents:
        """Return one extent of data: nothing is known of a stream."""
        return Extents.uniform(MAX_IMAGE_BYTES if self.size_bytes is None else self.size_bytes)

    def peek(self, length: int) -> bytes:
        """Return the first bytes, which stay to be read; only before the first read."""
        assert self._position == 0, "the head of a stream is examined before it is read"
        memory = memoryview(bytearray(max(length, len(self._peeked))))
        got = self.read_into(0, memory)
        self._peeked, self._position, self.size_bytes = bytes(memory[:got]), 0, None
        return self._peeked[:length]

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill `buffer` with what comes next, waiting for it; fewer bytes only at the end. Raises ImageError."""
        assert offset == self._position, "a stream is read front to back"
        got = min(len(self._peeked), len(buffer))
        buffer[:got], self._peeked = self._peeked[:got], self._peeked[got:]
        try:
            while got < len(buffer) and not self._is_at_end:
                more = read_some(self._descriptor, buffer[got:])
                self._is_at_end = more == 0
                got += more
        except OSError as error:
            raise ImageError(
                "standard input" if self.path == "-" else self.path,
                f"cannot be read at byte {offset + got}: {describe_failure(error)}",
            ) from error
        self._position += got
        if self._is_at_end and not self._peeked:
            self.size_bytes = self._position
        return got

    def reread(self, ranges: Ranges, out: memoryview) -> None:
        """Do nothing: a stream cannot be read again."""

    def find_writer(self) -> str | None:
        """Return None: what writes to a stream makes the image."""
        return None

    def find_change(self) -> str | None:
        """Return None: a stream is read once."""
        return None

    def find_new_size(self) -> int | None:
        """Return None: a stream has the size that it had at its end."""
        return None

    def close(self) -> None:
        """Close the descriptor, if it is the source's own."""
        if self._is_owned:
            self._is_owned = False
            os.close(self._descriptor)
