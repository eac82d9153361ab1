# SPDX-License-Identifier: Apache-2.0
"""An image source as what readers of file systems take."""

from __future__ import annotations

import mmap

from msgspec import Struct

from deltaimg.image.source import ImageSource


class SourceBytes(Struct, frozen=True):
    """An image source, read at any offset; any thread."""

    source: ImageSource

    def read_at(self, offset: int, length: int) -> bytes:
        """Return `length` bytes, fewer only at the image's end; raises ImageError."""
        if not length:
            return b""
        # Aligned, as sources past the page cache want it.
        with mmap.mmap(-1, length) as memory, memoryview(memory) as buffer:
            return bytes(buffer[: self.source.read_into(offset, buffer)])
