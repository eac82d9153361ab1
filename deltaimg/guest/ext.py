# SPDX-License-Identifier: Apache-2.0
"""ext2, ext3 and ext4: the superblock.

Source  Documentation/filesystems/ext4 of Linux.
"""

from __future__ import annotations

import struct

from deltaimg.guest.file_system import FileSystem
from deltaimg.guest.window import Window, decode_text, format_uuid

SUPERBLOCK_OFFSET, SUPERBLOCK_BYTES = 1024, 1024
_MAGIC, _CLEAN = 0xEF53, 1
_HAS_JOURNAL, _RECOVER, _JOURNAL_DEVICE, _64BIT = 0x4, 0x4, 0x8, 0x80
_INCOMPATIBLE_2, _INCOMPATIBLE_3 = 0x12, 0x16
"""What ext2 and ext3 may have: file types, groups of meta blocks; ext3 a journal that is to be recovered, too."""
_RO_COMPATIBLE_23 = 0x7
"""Sparse superblocks, large files, B-tree folders."""
_MOST_BLOCK_SHIFT = 6


def recognise(window: Window) -> FileSystem | None:
    """Return the ext file system in a window; None where there is none. Raises one of NOT_RECOGNISED where it is cut short."""
    raw = window.read(SUPERBLOCK_OFFSET, SUPERBLOCK_BYTES)
    (magic, state) = struct.unpack_from("<HH", raw, 56)
    blocks, _, free, _, _, block_shift = struct.unpack_from("<6I", raw, 4)
    compatible, incompatible, ro_compatible = struct.unpack_from("<3I", raw, 92)
    if magic != _MAGIC or block_shift > _MOST_BLOCK_SHIFT:
        return None
    if incompatible & _64BIT:
        blocks |= struct.unpack_from("<I", raw, 336)[0] << 32
        free |= struct.unpack_from("<I", raw, 344)[0] << 32
    block_bytes = 1024 << block_shift
    is_journal = bool(incompatible & _JOURNAL_DEVICE)
    return FileSystem(
        kind="jbd" if is_journal else _name(compatible, incompatible, ro_compatible),
        label=decode_text(raw[120:136]),
        uuid=format_uuid(raw[104:120]),
        size_bytes=blocks * block_bytes,
        block_bytes=block_bytes,
        free_bytes=None if is_journal else min(free, blocks) * block_bytes,
        is_clean=bool(state & _CLEAN) and not incompatible & _RECOVER,
    )


def _name(compatible: int, incompatible: int, ro_compatible: int) -> str:
    has_old_features = not ro_compatible & ~_RO_COMPATIBLE_23
    if compatible & _HAS_JOURNAL:
        return "ext3" if has_old_features and not incompatible & ~_INCOMPATIBLE_3 else "ext4"
    return "ext2" if has_old_features and not incompatible & ~_INCOMPATIBLE_2 else "ext4"
