# SPDX-License-Identifier: Apache-2.0
"""What every image target promises: a new sparse file, a block device, a stream. `open_target` makes them.

tests/contract/test_image_targets.py holds every target to this.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from deltaimg.arrays import Ranges
from deltaimg.model import Extent


class ImageTarget(Protocol):
    """Where an image is written to. Every method may raise ImageError, TargetTooSmall where there is no more room.

    It ends with `commit` or `abort`; afterwards only `abort` may be called, and does nothing.
    """

    # -- properties ------------------------------------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """As the user named it."""
        ...

    @property
    def is_sequential(self) -> bool:
        """Whether it must be written once, front to back, by one thread."""
        ...

    @property
    def folder(self) -> str | None:
        """Where a restore may keep temporary files; None if the target has no such place."""
        ...

    @property
    def device_bytes(self) -> int | None:
        """Size of a block device, which may be larger than the image; None for all else."""
        ...

    @property
    def warnings(self) -> list[str]:
        """Warnings about the target; the commit may add some."""
        ...

    def find_free_bytes(self) -> int | None:
        """Return how many bytes there is room for; None where that does not matter or is not known."""
        ...

    # -- writing: any thread, any order, each byte at most once, unless it is sequential -----------------------------------

    def write(self, offset: int, data: memoryview) -> None:
        """Write `data` at `offset`; it is not kept. If sequential, `offset` must be where the last write ended."""
        ...

    def write_ranges(self, ranges: Ranges, data: memoryview) -> None:
        """Write the parts of `data` that `ranges` name to their offsets; not if sequential."""
        ...

    def read_back(self, ranges: Ranges, out: memoryview) -> None:
        """Fill the parts of `out` that `ranges` name with what was written before; not if sequential."""
        ...

    def clear(self, offset: int, length: int) -> None:
        """Make `length` bytes from `offset` read as zeros, as holes where the target has any. What is never written is not
        cleared on a device: whoever writes an image clears its holes.
        """
        ...

    def reserve(self, extents: Iterable[Extent]) -> None:
        """Take room for what will be written, ahead of all writing, if the target is faster for it."""
        ...

    def grow(self, size_bytes: int) -> None:
        """Have room for `size_bytes` at least; for images whose size is known last."""
        ...

    # -- the end ---------------------------------------------------------------------------------------------------------

    def commit(self) -> None:
        """Make the image appear: it is complete and verified. A file gets its name now, in one step; a device is synced.

        Raises TargetExists if a file of that name appeared meanwhile; the image is gone then, as after `abort`.
        """
        ...

    def abort(self) -> None:
        """Give up, and leave nothing behind that could be taken for an image; never raises."""
        ...
