# SPDX-License-Identifier: Apache-2.0
"""Which clusters of FAT12, FAT16 and FAT32 are free.

    rule   Nothing marked the volume as dirty: neither the boot sector, as Linux and Windows do while it is mounted, nor the
           second entry of the table, as Windows does. All copies of the table are equal, and in use.
           Free are the clusters whose entry is zero.

Source  Microsoft Extensible Firmware Initiative FAT32 File System Specification; fs/fat/inode.c of Linux.
"""

from __future__ import annotations

import struct

from deltaimg.arrays import find_stretches
from deltaimg.guest.fat import find_free_clusters, read_layout
from deltaimg.guest.free_blocks import FreeBlocks
from deltaimg.guest.window import Window
from deltaimg.image.extents import Bounds

_STATE_OFFSET, _STATE_OFFSET_32 = 37, 65
_FLAGS_OFFSET_32, _NO_MIRRORING = 40, 0x80
_DIRTY = 0x3
"""The volume is dirty; its medium is to be checked."""
_CLEAN, _CLEAN_32 = 0xC000, 0x0C000000
"""It was unmounted in order, and there was no error of the disk."""


def find_free(window: Window) -> FreeBlocks | str:
    """Return which bytes of the FAT in a window are free, or why that is not known. Raises one of NOT_RECOGNISED."""
    layout = read_layout(window)
    if layout is None:
        return "its boot sector makes no sense"
    raw, is_32 = window.read(0, 512), layout.bits == 32
    if raw[_STATE_OFFSET_32 if is_32 else _STATE_OFFSET] & _DIRTY:
        return "it is mounted, or was not unmounted in order"
    if is_32 and struct.unpack_from("<H", raw, _FLAGS_OFFSET_32)[0] & _NO_MIRRORING:
        return "only one of its tables is in use"
    head = window.read(layout.table_offset, 8)
    second = struct.unpack_from("<I", head, 4)[0] if is_32 else struct.unpack_from("<H", head, 2)[0]
    wanted = _CLEAN_32 if is_32 else _CLEAN
    if layout.bits > 12 and second & wanted != wanted:
        return "it was not unmounted in order, or had errors"
    tables = [
        window.read(layout.table_offset + n * layout.table_bytes, layout.table_bytes) for n in range(layout.tables)
    ]
    if any(each != tables[0] for each in tables):
        return "its tables differ"
    free = find_free_clusters(window, layout)
    bounds: Bounds = find_stretches(free) * layout.cluster_bytes + layout.data_offset
    return FreeBlocks(bounds, 0)
