# SPDX-License-Identifier: Apache-2.0
"""Linux swap space. What is in it is of no use to a guest that starts again, unless it hibernated.

Source  include/linux/swap.h.
"""

from __future__ import annotations

from deltaimg.guest.file_system import FileSystem
from deltaimg.guest.window import Window, decode_text, format_uuid

_PAGES = (4096, 8192, 16384, 65536)
_MAGIC = b"SWAPSPACE2"


def recognise(window: Window) -> FileSystem | None:
    """Return the swap space in a window; None where there is none. Raises one of NOT_RECOGNISED where it is cut short."""
    for page_bytes in _PAGES:
        if window.read(page_bytes - len(_MAGIC), len(_MAGIC)) != _MAGIC:
            continue
        version, last_page = window.unpack("<II", 1024)
        if version != 1:
            return None
        raw = window.read(1036, 32)
        return FileSystem(
            kind="swap",
            label=decode_text(raw[16:]),
            uuid=format_uuid(raw[:16]),
            size_bytes=(last_page + 1) * page_bytes,
            block_bytes=page_bytes,
        )
    return None
