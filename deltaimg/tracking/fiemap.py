# SPDX-License-Identifier: Apache-2.0
"""Where the content of a file lies on its file system (FIEMAP), and where two files share it.

Two files on one file system have the same content where both have the same address, as long as neither was written to since
it had it: the file system does not overwrite what two files share, and does not use an address again that a file has. So the
maps of two *clones* are compared, the older of which nothing has written to; that of the image itself says nothing (XFS
overwrites in place what is not shared), and neither does a map that was kept without its file.

An address means nothing while content waits to be written out (the map is read with FIEMAP_FLAG_SYNC), where it is compressed
or encrypted (several extents may begin at one address), and where it is stored in metadata. There the files differ, as far as
this module can say.

Memory  80 bytes for each extent.
Source  Documentation/filesystems/fiemap.rst, include/uapi/linux/fiemap.h.
"""

from __future__ import annotations

import fcntl
import os
import struct

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.arrays import distinct
from deltaimg.image.extents import Bounds, merge_bounds

_FS_IOC_FIEMAP = 0xC020660B
_FLAG_SYNC = 1
_LAST, _UNKNOWN, _DELALLOC, _ENCODED, _ENCRYPTED, _NOT_ALIGNED = 0x1, 0x2, 0x4, 0x8, 0x80, 0x100
_INLINE, _TAIL, _UNWRITTEN = 0x200, 0x400, 0x800
_NO_ADDRESS = _UNKNOWN | _DELALLOC | _ENCODED | _ENCRYPTED | _NOT_ALIGNED | _INLINE | _TAIL
_HEADER = struct.Struct("=QQLLLL")
_EXTENT = np.dtype(
    [
        ("logical", "=u8"),
        ("physical", "=u8"),
        ("length", "=u8"),
        ("reserved", "=u8", 2),
        ("flags", "=u4"),
        ("more", "=u4", 3),
    ]
)
_BATCH = 2048
_EMPTY, _ADDRESSED, _UNCLEAR = 0, 1, 2
"""Reads as zeros, whether it is a hole or allocated and unwritten; has an address; has none that means anything."""

Numbers = npt.NDArray[np.int64]


class FileMap(Struct, frozen=True, eq=False):
    """Where a file's content lies. Extents that are split differently mean the same."""

    starts: Numbers
    """Offsets, ascending from 0; an extent of no length may be among them."""
    kinds: npt.NDArray[np.uint8]
    """What begins at each."""
    shifts: Numbers
    """Its address less its offset: the same all over an extent."""
    size_bytes: int

    def is_same(self, other: FileMap) -> bool:
        """Return whether this is the same map, extent by extent."""
        return (
            self.size_bytes == other.size_bytes
            and np.array_equal(self.starts, other.starts)
            and np.array_equal(self.kinds, other.kinds)
            and np.array_equal(self.shifts, other.shifts)
        )


def read_file_map(descriptor: int) -> FileMap:
    """Return the map of an open file, once all that waits for it is written out; raises OSError where there is none."""
    size_bytes = os.fstat(descriptor).st_size
    extents = _read_extents(descriptor, size_bytes)
    logical, length = extents["logical"].astype(np.int64), extents["length"].astype(np.int64)
    is_empty, is_unclear = (extents["flags"] & _UNWRITTEN) != 0, (extents["flags"] & _NO_ADDRESS) != 0
    kinds = np.where(is_unclear, _UNCLEAR, np.where(is_empty, _EMPTY, _ADDRESSED)).astype(np.uint8)
    shifts = np.where(kinds == _ADDRESSED, extents["physical"].astype(np.int64) - logical, 0)
    # A hole follows each extent, of no length where the next one begins there; and one comes first.
    starts = np.stack((logical, logical + length), axis=1).ravel()
    empty = np.zeros(len(extents), np.int64)
    return FileMap(
        np.concatenate(([0], starts)),
        np.concatenate(([_EMPTY], np.stack((kinds, empty), axis=1).ravel())).astype(np.uint8),
        np.concatenate(([0], np.stack((shifts, empty), axis=1).ravel())),
        size_bytes,
    )


def find_differences(old: FileMap, new: FileMap) -> Bounds:
    """Return where the content of `new` is not known to be that of `old`, up to the end of `new`."""
    common = min(old.size_bytes, new.size_bytes)
    edges = distinct(np.concatenate((old.starts, new.starts)))
    edges = edges[edges < common]
    of_old, of_new = (np.searchsorted(each.starts, edges, side="right") - 1 for each in (old, new))
    kinds, other_kinds = old.kinds[of_old], new.kinds[of_new]
    is_same = (kinds == other_kinds) & (kinds != _UNCLEAR) & (old.shifts[of_old] == new.shifts[of_new])
    ends = np.append(edges[1:], common)
    differing = np.stack((edges, ends), axis=1)[~is_same]
    if new.size_bytes > common:
        differing = np.concatenate((differing, [(common, new.size_bytes)]))
    return merge_bounds(differing)


def _read_extents(descriptor: int, size_bytes: int) -> npt.NDArray[np.void]:
    """Return what the kernel reports, in order; raises OSError."""
    parts, position = [np.empty(0, _EXTENT)], 0
    while position < size_bytes:
        buffer = bytearray(_HEADER.size + _BATCH * _EXTENT.itemsize)
        _HEADER.pack_into(buffer, 0, position, size_bytes - position, _FLAG_SYNC, 0, _BATCH, 0)
        fcntl.ioctl(descriptor, _FS_IOC_FIEMAP, buffer, True)
        count = _HEADER.unpack_from(buffer)[3]
        found = np.frombuffer(buffer, _EXTENT, count, _HEADER.size)
        # The first one may begin before what was asked for: then the rest of it was.
        found = found[found["logical"] + found["length"] > position]
        if not len(found):
            break
        parts.append(found)
        position = int(found["logical"][-1] + found["length"][-1])
        if found["flags"][-1] & _LAST:
            break
    return np.concatenate(parts)
