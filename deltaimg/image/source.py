# SPDX-License-Identifier: Apache-2.0
"""What every image source promises: a raw file, a block device, a stream. `open_source` makes them.

tests/contract/test_image_sources.py holds every source to this.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from deltaimg.arrays import Ranges
from deltaimg.image.extents import Bounds, Extents
from deltaimg.model import Extent


class ImageSource(Protocol):
    """An image to read. Every method may raise ImageError."""

    # -- properties: set when it is opened, but for the size of a stream ------------------------------------------------

    @property
    def path(self) -> str:
        """As the user named it."""
        ...

    @property
    def is_sequential(self) -> bool:
        """Whether it must be read once, front to back, by one thread; else any thread may read at any offset."""
        ...

    @property
    def is_device(self) -> bool:
        """Whether it is a block device, whose size says nothing about what is on it."""
        ...

    @property
    def size_bytes(self) -> int | None:
        """The image's size; None while a stream has not ended."""
        ...

    # -- what is known without reading -----------------------------------------------------------------------------------

    def extents(self) -> Extents:
        """Return what is known of the image before it is read, as of now; DATA up to MAX_IMAGE_BYTES while a stream lasts.

        What the source does not report as something else is DATA, and must be read.
        """
        ...

    def find_writer(self) -> str | None:
        """Return what uses the image and may write to it, in words that complete "it is ..."; None if nothing is known to."""
        ...

    def find_change(self) -> str | None:
        """Return how the image was changed since it was opened, in words that follow its name; None if it was not."""
        ...

    def find_new_size(self) -> int | None:
        """Return how many bytes the image has now, if it has more or fewer than `size_bytes`; None where that is not known."""
        ...

    # -- reading ---------------------------------------------------------------------------------------------------------

    def peek(self, length: int) -> bytes:
        """Return the image's first bytes, fewer only where it has fewer. A stream still has them; call it before reading."""
        ...

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill `buffer` from `offset` and return how many bytes there were, fewer only at the image's end; holes are zeros.

        The buffer is not kept. Of a stream `offset` must be where the last read ended.
        """
        ...

    def reread(self, ranges: Ranges, out: memoryview) -> None:
        """Fill the parts of `out` that `ranges` name with what is there now; any thread.

        For content that was read before and may have changed: the caller verifies it. What cannot be read again, of a stream
        everything, is left as it is in `out`.
        """
        ...

    @property
    def unreadable(self) -> tuple[Extent, ...]:
        """What could not be read so far, and was zeros instead: ascending and apart. Empty unless it was opened to salvage."""
        ...

    def close(self) -> None:
        """Close it. Nothing else may be called afterwards."""
        ...


@runtime_checkable
class HasBitmaps(Protocol):
    """An image source that may have dirty bitmaps: an export, or a file that qemu reads."""

    def find_dirty(self, bitmap: str) -> Bounds | None:
        """Return what a dirty bitmap calls changed; None where there is no such bitmap. Raises ImageError.

        Args:
            bitmap: one that was asked for when the source was opened.
        """
        ...
