# SPDX-License-Identifier: Apache-2.0
"""Linux swap space. What is in it is of no use to a guest that starts again, unless it hibernated.

    rule   Its header is that of swap space. A guest that hibernated has changed it: then it is not recognised, and kept.
           Free is everything behind the first page, which has the header: label, UUID and bad pages stay.

Source  include/linux/swap.h.
"""

from __future__ import annotations

import numpy as np

from deltaimg.guest.file_system import FileSystem
from deltaimg.guest.free_blocks import FreeBlocks
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


def find_free(window: Window) -> FreeBlocks | str:
    """Return which bytes of the swap space in a window are free, or why that is not known. Raises one of NOT_RECOGNISED."""
    found = recognise(window)
    if found is None or found.size_bytes > window.size_bytes:
        return "its header makes no sense"
    return FreeBlocks(np.array([[found.block_bytes, found.size_bytes]], np.int64), 0)
