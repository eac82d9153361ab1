# SPDX-License-Identifier: Apache-2.0
"""LVM2 physical volumes: the label, and the name of the volume group in the metadata.

Source  lib/label/label.h, lib/format_text/layout.h of LVM2.
"""

from __future__ import annotations

import re
import struct
from contextlib import suppress

from deltaimg.guest.file_system import FileSystem
from deltaimg.guest.window import NOT_RECOGNISED, Window

_SECTOR = 512
_LABEL = struct.Struct("<8sQII8s")
_METADATA_MAGIC = b" LVM2 x[5A%r0N*>"
_GROUP = re.compile(rb"\s*([\w+.-]{1,127})\s*\{")
_UUID_PARTS = (6, 4, 4, 4, 4, 4, 6)
_MOST_AREAS = 16


def recognise(window: Window) -> FileSystem | None:
    """Return the physical volume in a window; None where there is none. Raises one of NOT_RECOGNISED where it is cut short."""
    for sector in range(4):
        magic, place, _, offset, kind = _LABEL.unpack(window.read(sector * _SECTOR, _LABEL.size))
        if magic == b"LABELONE" and kind == b"LVM2 001" and place == sector:
            return _read_header(window, sector * _SECTOR + offset)
    return None


def _read_header(window: Window, offset: int) -> FileSystem:
    raw = window.read(offset, 40)
    (size_bytes,) = struct.unpack_from("<Q", raw, 32)
    name = ""
    with suppress(*NOT_RECOGNISED):
        name = _find_group(window, offset + 40)
    return FileSystem(
        kind="LVM2_member", label=name, uuid=_format_id(raw[:32]), size_bytes=size_bytes, block_bytes=_SECTOR
    )


def _find_group(window: Window, offset: int) -> str:
    """Return the name of the volume group, empty where the volume is in none."""
    areas = []
    for _ in range(2):  # data areas, then metadata areas; each list ends with an empty one
        for _ in range(_MOST_AREAS):
            area = window.unpack("<QQ", offset)
            offset += 16
            if area == (0, 0):
                break
            areas.append(area)
    for start, _ in areas:
        with suppress(*NOT_RECOGNISED):
            _, magic, _, _, _, text_offset, text_bytes, _, _ = window.unpack("<I16sIQQQQII", start)
            if magic == _METADATA_MAGIC and text_bytes:
                found = _GROUP.match(window.read(start + text_offset, min(text_bytes, 256)))
                return found[1].decode("ascii") if found else ""
    return ""


def _format_id(raw: bytes) -> str:
    text, parts, start = raw.decode("ascii"), [], 0
    for length in _UUID_PARTS:
        parts.append(text[start : start + length])
        start += length
    return "-".join(parts)
