# SPDX-License-Identifier: Apache-2.0
"""XFS: the superblock.

Source  XFS Algorithms & Data Structures, "Superblocks".
"""

from __future__ import annotations

import struct

from deltaimg.guest.file_system import FileSystem
from deltaimg.guest.window import Window, decode_text, format_uuid

SUPERBLOCK_BYTES = 512


def recognise(window: Window) -> FileSystem | None:
    """Return the XFS in a window; None where there is none. Raises one of NOT_RECOGNISED where it is cut short.

    Whether it is clean is in its log.
    """
    raw = window.read(0, SUPERBLOCK_BYTES)
    magic, block_bytes, blocks = struct.unpack_from(">4sIQ", raw)
    (free,) = struct.unpack_from(">Q", raw, 144)
    if magic != b"XFSB" or block_bytes & (block_bytes - 1) or not 512 <= block_bytes <= 65536:
        return None
    return FileSystem(
        kind="xfs",
        label=decode_text(raw[108:120]),
        uuid=format_uuid(raw[32:48]),
        size_bytes=blocks * block_bytes,
        block_bytes=block_bytes,
        free_bytes=min(free, blocks) * block_bytes,
    )
