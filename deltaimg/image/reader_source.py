# SPDX-License-Identifier: Apache-2.0
"""What image sources have in common that read through something else than the kernel: a server, a library."""

from __future__ import annotations

import os

from deltaimg.arrays import Ranges
from deltaimg.errors import ImageError
from deltaimg.format.limits import MAX_UNREADABLE_EXTENTS
from deltaimg.image.reader import Reader, ReadFailure, SourceFailure
from deltaimg.image.salvage_reader import SalvageReader, TooMuchUnreadable, describe_loss, hint_at_salvage
from deltaimg.model import Extent

_SECTOR_BYTES = 512


class ReaderSource:
    """Reads by a reader. Who else uses the image is not known here."""

    is_sequential = False
    is_device = True

    def __init__(
        self, path: str, reader: Reader, *, size_bytes: int, granule_bytes: int = 1, is_salvaging: bool = False
    ) -> None:
        """Args: path: as messages and the manifest have it. granule_bytes: the least that can be read at once."""
        self.path, self.size_bytes = path, size_bytes
        self._reader, self._salvage = reader, None
        if is_salvaging:
            self._reader = self._salvage = SalvageReader(
                reader,
                reader,
                size_bytes=size_bytes,
                granule_bytes=max(_SECTOR_BYTES, granule_bytes),
                max_extents=MAX_UNREADABLE_EXTENTS,
            )

    @property
    def unreadable(self) -> tuple[Extent, ...]:
        """What a salvaging source could not read so far; empty for others."""
        return self._salvage.unreadable if self._salvage else ()

    def peek(self, length: int) -> bytes:
        """Return the first bytes."""
        memory = memoryview(bytearray(length))
        return bytes(memory[: self.read_into(0, memory)])

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill `buffer` from `offset`, any thread; raises ImageError, naming the byte that cannot be read."""
        try:
            return self._reader.read_into(offset, buffer)
        except (SourceFailure, ReadFailure, TooMuchUnreadable) as failure:
            raise self.describe(failure) from failure

    def reread(self, ranges: Ranges, out: memoryview) -> None:
        """Fill parts of `out` again, any thread; raises ImageError."""
        try:
            self._reader.reread(ranges, out)
        except (SourceFailure, ReadFailure, TooMuchUnreadable) as failure:
            raise self.describe(failure) from failure

    def find_writer(self) -> str | None:
        """Return None: nothing is known."""
        return None

    def find_change(self) -> str | None:
        """Return None: nothing is known."""
        return None

    def find_new_size(self) -> int | None:
        """Return None: nothing is known."""
        return None

    def describe(self, failure: SourceFailure | ReadFailure | TooMuchUnreadable) -> ImageError:
        """Return what a failure means for whoever reads the image."""
        if isinstance(failure, SourceFailure):
            return ImageError(self.path, failure.problem, hint=failure.hint)
        if isinstance(failure, TooMuchUnreadable):
            return describe_loss(self.path, self.unreadable)
        problem = f"cannot be read at byte {failure.offset}: the server says: {os.strerror(failure.error_number)}"
        return ImageError(self.path, problem, hint=hint_at_salvage(failure))
