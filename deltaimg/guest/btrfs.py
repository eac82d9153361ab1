# SPDX-License-Identifier: Apache-2.0
"""btrfs: the superblock. What it counts as used is before replication, so that free room is known for one device only.

Source  "On-disk format" of the btrfs documentation.
"""

from __future__ import annotations

import struct

from deltaimg.guest.file_system import FileSystem
from deltaimg.guest.window import Window, decode_text, format_uuid

_OFFSET, _BYTES = 65536, 4096


def recognise(window: Window) -> FileSystem | None:
    """Return the btrfs in a window; None where there is none. Raises one of NOT_RECOGNISED where it is cut short."""
    raw = window.read(_OFFSET, _BYTES)
    if raw[64:72] != b"_BHRfS_M":
        return None
    total, used = struct.unpack_from("<QQ", raw, 112)
    devices, block_bytes = struct.unpack_from("<QI", raw, 136)
    return FileSystem(
        kind="btrfs",
        label=decode_text(raw[299:555]),
        uuid=format_uuid(raw[32:48]),
        size_bytes=total if devices == 1 else window.size_bytes,
        block_bytes=block_bytes,
        free_bytes=total - used if devices == 1 and used <= total else None,
    )
