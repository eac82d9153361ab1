# SPDX-License-Identifier: Apache-2.0
"""Which clusters of NTFS are free.

    rule   The volume is not marked as dirty, its journal says that it was unmounted in order, and Windows did not hibernate
           with it, fast start-up included. It has no shadow copies: of what was deleted since, these read the clusters where
           it was, free by now, as long as nothing overwrote them. What is known to be in use (boot sector, master file table,
           its copy, journal, bitmap) is so in the bitmap. Free are the clusters that the bitmap has free.

Source  "NTFS Documentation" of the Linux-NTFS project; ntfs_is_logfile_clean and ntfs_volume_check_hiberfile of ntfs-3g;
        "Volume Shadow Snapshot (VSS) format" of libvshadow.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from deltaimg.arrays import find_stretches
from deltaimg.guest.free_blocks import FreeBlocks
from deltaimg.guest.ntfs import (
    BITMAP,
    DATA,
    Attribute,
    NtfsLayout,
    find_free_clusters,
    read_attributes,
    read_layout,
    recognise,
    restore_sectors,
)
from deltaimg.guest.window import Window
from deltaimg.image.extents import Bounds

_TABLE, _TABLE_COPY, _LOG, _ROOT, _BOOT = 0, 1, 2, 5, 7
_INDEX_ROOT, _INDEX_BLOCKS, _INDEX_NAME = 0x90, 0xA0, "$I30"
_NO_CLIENT, _IS_CLEAN = 0xFFFF, 0x2
_MOST_INDEX_BYTES = 64 << 20
_HIBERNATION_FILE = "hiberfil.sys".encode("utf-16-le")
_NAME_OFFSET = 82
"""Of the name in an entry of a folder's index."""
_RESUMED = (b"wake", b"WAKE")
_SHADOW_HEADER_OFFSET, _SHADOW_IDENTIFIER = 0x1E00, bytes.fromhex("6b87083876c1484eb7ae04046e6cc752")


def find_free(window: Window) -> FreeBlocks | str:
    """Return which bytes of the NTFS in a window are free, or why that is not known. Raises one of NOT_RECOGNISED."""
    layout, found = read_layout(window), recognise(window)
    if layout is None or found is None or layout.clusters * layout.cluster_bytes > window.size_bytes:
        return "its boot sector makes no sense"
    if not found.is_clean:
        return "it is mounted, or marked for a check"
    if not _is_log_clean(window, layout):
        return "it is mounted, or was not unmounted in order"
    if _has_hibernated(window, layout):
        return "Windows hibernated, or shut down for a fast start-up"
    if _has_shadow_copies(window):
        return "it has shadow copies (restore points), which read what was deleted since"
    free = find_free_clusters(window, layout)
    for first, count in _list_known_used(window, layout):
        if free[first : first + count].any():
            return "its bitmap is not right"
    bounds: Bounds = find_stretches(free) * layout.cluster_bytes
    return FreeBlocks(bounds, 0)


def _has_shadow_copies(window: Window) -> bool:
    identifier, catalog_offset = window.unpack("<16s32xQ", _SHADOW_HEADER_OFFSET)
    return bool(identifier == _SHADOW_IDENTIFIER and catalog_offset)


def _is_log_clean(window: Window, layout: NtfsLayout) -> bool:
    log = _find(window, layout, _LOG, DATA)
    raw = log.read(2 * 65536)
    if raw.count(0xFF) == len(raw):
        return True  # as a tool leaves it that has emptied it
    page_bytes = struct.unpack_from("<I", raw, 16)[0]
    if page_bytes not in (4096, 8192, 16384, 32768, 65536):
        raise ValueError("a page of an odd size")
    states = [_read_restart(raw[start : start + page_bytes]) for start in (0, page_bytes)]
    return max(states)[1]


def _read_restart(raw: bytes) -> tuple[int, bool]:
    """Return the number of a restart page of the journal, and whether nothing was open then; raises one of NOT_RECOGNISED."""
    page = restore_sectors(raw, b"RSTR")
    offset, _, major = struct.unpack_from("<HHH", page, 24)
    number, _, _, in_use, flags = struct.unpack_from("<QHHHH", page, offset)
    # Windows writes version 2 while a volume is mounted, and puts it back to 1 in the end.
    return number, major == 1 and (in_use == _NO_CLIENT or bool(flags & _IS_CLEAN))


def _has_hibernated(window: Window, layout: NtfsLayout) -> bool:
    """Return whether the root folder has a file in which Windows keeps its memory, and there is something in it."""
    for entries in _read_index(window, layout):
        lowered, position = entries.lower(), -1
        while (position := lowered.find(_HIBERNATION_FILE, position + 1)) >= 0:
            if position < _NAME_OFFSET:
                raise ValueError("a name without an entry")
            number = int.from_bytes(entries[position - _NAME_OFFSET : position - _NAME_OFFSET + 6], "little")
            head = _find(window, layout, number, DATA).read(4096)
            if any(head) and head[:4] not in _RESUMED:
                return True
    return False


def _read_index(window: Window, layout: NtfsLayout) -> Iterator[bytes]:
    """Yield the root folder's entries, in pieces."""
    block_bytes = 0
    for attribute in read_attributes(window, layout, _ROOT):
        if attribute.is_named(_INDEX_ROOT, _INDEX_NAME):
            value = attribute.read()
            (block_bytes,) = struct.unpack_from("<I", value, 8)
            yield value
        if attribute.is_named(_INDEX_BLOCKS, _INDEX_NAME):
            value = attribute.read(_MOST_INDEX_BYTES)
            if not 512 <= block_bytes <= 65536:
                raise ValueError("blocks of an odd size")
            for start in range(0, len(value) - block_bytes + 1, block_bytes):
                block = value[start : start + block_bytes]
                if block[:4] == b"INDX":
                    yield restore_sectors(block, b"INDX")


def _list_known_used(window: Window, layout: NtfsLayout) -> Iterator[tuple[int, int]]:
    """Yield first cluster and count of what the file system needs to be one."""
    for number in (_TABLE, _TABLE_COPY, _LOG, BITMAP, _BOOT):
        yield from _find(window, layout, number, DATA).list_runs()


def _find(window: Window, layout: NtfsLayout, number: int, kind: int) -> Attribute:
    for attribute in read_attributes(window, layout, number):
        if attribute.is_named(kind):
            return attribute
    raise ValueError("an attribute that is missing")
