# SPDX-License-Identifier: Apache-2.0
"""What files and block devices have in common as targets: they are written at offsets, through a descriptor."""

from __future__ import annotations

import errno
import os

from deltaimg.arrays import Ranges
from deltaimg.errors import ImageError, TargetTooSmall
from deltaimg.kernels import read_ranges, write_ranges

WRITE_BYTES = 256 * 1024
"""A larger write makes the kernel look for larger folios, which now and then took it eight times as long as the copying."""


class DescriptorTarget:
    """Writes to and reads back from a descriptor, which a class of this kind opens and closes."""

    is_sequential = False
    folder: str | None = None

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self.warnings: list[str] = []
        self._descriptor = descriptor

    def read_back(self, ranges: Ranges, out: memoryview) -> None:
        """Fill the parts of `out` that `ranges` name; raises ImageError where that fails or the file ends early."""
        failed = read_ranges(self._descriptor, ranges, out)
        if failed is not None:
            why = os.strerror(failed.error_number) if failed.error_number else "it ends early, though more was written"
            raise ImageError(self.path, f"cannot be read at byte {ranges['offset'][failed.number]}: {why}")

    def write_ranges(self, ranges: Ranges, data: memoryview) -> None:
        """Write the parts of `data` that `ranges` name; raises TargetTooSmall or ImageError."""
        failed = write_ranges(self._descriptor, ranges, data, WRITE_BYTES)
        if failed is not None:
            raise self._fail_to_write(int(ranges["offset"][failed.number]), OSError(failed.error_number, ""))

    def write(self, offset: int, data: memoryview) -> None:
        """Write all of `data` at `offset`; raises TargetTooSmall or ImageError."""
        try:
            while len(data):
                written = os.pwrite(self._descriptor, data[:WRITE_BYTES], offset)
                data, offset = data[written:], offset + written
        except OSError as error:
            raise self._fail_to_write(offset, error) from error

    def _fail_to_write(self, offset: int | None, error: OSError) -> ImageError:
        return describe_write_failure(self.path, offset, error)


def describe_write_failure(path: str, offset: int | None, error: OSError) -> ImageError:
    """Return the error for a write to a target that failed.

    Args:
        offset: None for what concerns no byte of it or all of them: a new name, a sync.
    """
    shortage = name_shortage(error.errno)
    if shortage is not None:
        when = "for all of it" if offset is None else f"when writing at byte {offset}"
        return TargetTooSmall(path, f"{shortage} {when}", hint=hint_at_room(error.errno))
    where = "" if offset is None else f" at byte {offset}"
    hint = "look for errors of its disk (dmesg)" if error.errno == errno.EIO else None
    return ImageError(path, f"cannot be written{where}: {os.strerror(error.errno or 0)}", hint=hint)


def name_shortage(error_number: int | None) -> str | None:
    """Return what there is too little of, if that is what an error says: `df` shows room where a quota is reached."""
    return {errno.ENOSPC: "no space left", errno.EDQUOT: "no quota left"}.get(error_number or 0)


def hint_at_room(error_number: int | None) -> str:
    """Return what to do where `name_shortage` returns something."""
    return "make room, or raise the quota, and run again" if error_number == errno.EDQUOT else "make room and run again"
