# SPDX-License-Identifier: Apache-2.0
"""The status of an open file: size and times as they are now, and how O_DIRECT must be aligned.

Python has no statx(2). It asks the server where a network file system would answer from its cache (AT_STATX_FORCE_SYNC), and
returns what O_DIRECT needs (STATX_DIOALIGN, Linux 6.1). Where the C library or kernel lacks it, fstat has to do.
"""

from __future__ import annotations

import ctypes
import os
import struct

from msgspec import Struct

_EMPTY_PATH, _FORCE_SYNC = 0x1000, 0x2000
_BASIC_STATS, _DIRECT_ALIGNMENT = 0x7FF, 0x2000
_STATX_BYTES = _STATFS_BYTES = 256
_SIZE, _CTIME, _MTIME, _ALIGNMENT = (
    (struct.Struct("=Q"), 40),
    (struct.Struct("=qI"), 96),
    (struct.Struct("=qI"), 112),
    (struct.Struct("=II"), 152),
)
"""Fields of struct statx, and where they are in it."""


class FileStatus(Struct, frozen=True):
    """Size in bytes; times of the last change to content and to inode in ns; alignment in bytes, 0 where it is not known."""

    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    direct_alignment: int


def read_file_status(descriptor: int) -> FileStatus:
    """Return the status of an open file or device; raises OSError."""
    statx = getattr(ctypes.CDLL(None, use_errno=True), "statx", None)
    buffer = ctypes.create_string_buffer(_STATX_BYTES)
    flags, mask = _EMPTY_PATH | _FORCE_SYNC, _BASIC_STATS | _DIRECT_ALIGNMENT
    if statx is None or statx(descriptor, b"", flags, mask, buffer) != 0:
        found = os.fstat(descriptor)
        return FileStatus(found.st_size, found.st_mtime_ns, found.st_ctime_ns, 0)
    (size_bytes,), ctime, mtime, alignment = (
        layout.unpack_from(buffer, offset) for layout, offset in (_SIZE, _CTIME, _MTIME, _ALIGNMENT)
    )
    return FileStatus(size_bytes, _in_ns(*mtime), _in_ns(*ctime), max(alignment))


def read_file_system(file: int | str) -> int:
    """Return the number of the file system's kind (statfs(2), `f_type`); 0 where it cannot be asked."""
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    path = f"/proc/self/fd/{file}" if isinstance(file, int) else file
    if ctypes.CDLL(None, use_errno=True).statfs(os.fsencode(path), buffer) != 0:
        return 0
    return int(struct.unpack_from("@l", buffer)[0])


def _in_ns(seconds: int, nanoseconds: int) -> int:
    return seconds * 10**9 + nanoseconds
