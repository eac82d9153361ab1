# SPDX-License-Identifier: Apache-2.0
"""The standard output, or a named pipe, as a target: written once, front to back."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

from deltaimg.arrays import Ranges
from deltaimg.descriptors import find_descriptor, write_all, write_output
from deltaimg.errors import ImageError, UnsupportedImage
from deltaimg.image.descriptor_target import describe_write_failure
from deltaimg.model import Extent

_ZERO_BUFFER = bytes(1 << 20)


class StreamTarget:
    """A pipe, or whatever else stands behind a descriptor."""

    is_sequential = True
    folder: str | None = None
    device_bytes: int | None = None

    def __init__(self, descriptor: int, path: str = "-", *, is_owned: bool = False) -> None:
        """Args: is_owned: close the descriptor at the end."""
        self.path = path
        self.warnings: list[str] = []
        self._descriptor, self._is_owned = descriptor, is_owned
        if os.isatty(descriptor):
            raise UnsupportedImage(self.path, "the standard output is a terminal", hint="send it to a file or a pipe")

    def find_free_bytes(self) -> int | None:
        """Return None: how much fits is not known."""
        return None

    def write(self, offset: int, data: memoryview) -> None:
        """Write all of `data`, which must follow what was written before; raises ImageError, ReaderGone or OutputError."""
        if not self._is_owned:
            write_output(data, self._descriptor)
            return
        try:
            write_all(self._descriptor, data)
        except OSError as error:
            raise describe_write_failure(self.path, offset, error) from error

    def write_ranges(self, ranges: Ranges, data: memoryview) -> None:
        """Raise ImageError: a stream is written in order."""
        raise ImageError(self.path, f"a stream is written in order, not {len(data)} bytes in {len(ranges)} ranges")

    def read_back(self, ranges: Ranges, out: memoryview) -> None:
        """Raise ImageError: a stream cannot be read again."""
        raise ImageError(self.path, f"a stream cannot be read again: {len(out)} bytes in {len(ranges)} ranges")

    def clear(self, offset: int, length: int) -> None:
        """Write `length` zeros."""
        for start in range(offset, offset + length, len(_ZERO_BUFFER)):
            self.write(start, memoryview(_ZERO_BUFFER)[: offset + length - start])

    def reserve(self, extents: Iterable[Extent]) -> None:
        """Nothing to do: whoever reads a stream finds room for it."""

    def grow(self, size_bytes: int) -> None:
        """A stream ends where it ends."""

    def commit(self) -> None:
        """Close the descriptor, if it is the target's own; raises ImageError."""
        try:
            self._close()
        except OSError as error:
            raise describe_write_failure(self.path, None, error) from error

    def abort(self) -> None:
        """What is written is written; the exit code says that it is not all."""
        with suppress(OSError):
            self._close()

    def _close(self) -> None:
        if self._is_owned:
            self._is_owned = False
            os.close(self._descriptor)


def open_stream_target(path: str) -> StreamTarget:
    """Open a named pipe, which waits for a reader, or one of this process's own, such as /dev/stdout."""
    number = find_descriptor(path)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC) if number is None else os.dup(number)
    except OSError as error:
        raise ImageError(path, f"cannot be written: {os.strerror(error.errno or 0)}") from error
    return StreamTarget(descriptor, path, is_owned=True)
