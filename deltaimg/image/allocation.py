# SPDX-License-Identifier: Apache-2.0
"""What of a file or block device has blocks on the disk: reserved before they are written, given back where nothing is.

Both are fallocate(2), of which Python's os has only what writes each block where a file system cannot reserve.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable

from deltaimg.file_status import read_file_system
from deltaimg.model import KIB, Extent

_KEEP_SIZE, _PUNCH = 0x01, 0x01 | 0x02  # FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE
_ZEROS = bytes(1 << 20)
_RESERVING = (0xEF53, 0x58465342)
"""ext4 and XFS (statfs(2)). btrfs compresses nothing that was reserved, tmpfs fills it with zeros, servers may write it."""
_LEAST_RESERVED_BYTES = 64 * KIB
"""A call for each shorter extent costs what it saves."""


def reserve_blocks(descriptor: int, extents: Iterable[Extent]) -> int | None:
    """Allocate blocks for the long ones of `extents`, which hold nothing yet; return ENOSPC or EDQUOT where that ends early.

    Writing there takes a quarter less system time afterwards, and holds the file's lock for less of it. Other file systems than
    ext4 and XFS are left as they are, and have room.
    """
    if not reserves_blocks(descriptor):
        return None
    fallocate = _fallocate()
    for extent in extents:
        if extent.length < _LEAST_RESERVED_BYTES:
            continue
        while fallocate(descriptor, _KEEP_SIZE, extent.start, extent.length) != 0:
            if (error_number := ctypes.get_errno()) != errno.EINTR:
                # Anything else, such as EOPNOTSUPP of ext3, says nothing of the writes to come.
                return error_number if error_number in (errno.ENOSPC, errno.EDQUOT) else None
    return None


def reserves_blocks(file: int | str) -> bool:
    """Return whether blocks can be reserved where an open file, or a folder, is: what has no room there has none at all."""
    return read_file_system(file) in _RESERVING


def punch_hole(descriptor: int, offset: int, length: int) -> bool:
    """Deallocate a range; False where the file system or device cannot."""
    return bool(_fallocate()(descriptor, _PUNCH, offset, length) == 0)


def clear_range(descriptor: int, offset: int, length: int) -> None:
    """Deallocate a range, or write zeros; raises OSError."""
    if punch_hole(descriptor, offset, length):
        return
    end = offset + length
    while offset < end:
        offset += os.pwrite(descriptor, memoryview(_ZEROS)[: end - offset], offset)


def _fallocate() -> ctypes._NamedFuncPointer:
    fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return fallocate
