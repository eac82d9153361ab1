# SPDX-License-Identifier: Apache-2.0
"""Making a range of a file or block device read as zeros, without writing them where that is possible."""

from __future__ import annotations

import ctypes
import os

_PUNCH = 0x01 | 0x02  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
_ZEROS = bytes(1 << 20)


def punch_hole(descriptor: int, offset: int, length: int) -> bool:
    """Deallocate a range; False where the file system or device cannot. Python's os has no call for it."""
    fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return bool(fallocate(descriptor, _PUNCH, offset, length) == 0)


def clear_range(descriptor: int, offset: int, length: int) -> None:
    """Deallocate a range, or write zeros; raises OSError."""
    if punch_hole(descriptor, offset, length):
        return
    end = offset + length
    while offset < end:
        offset += os.pwrite(descriptor, memoryview(_ZEROS)[: end - offset], offset)
