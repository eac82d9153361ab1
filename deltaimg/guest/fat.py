# SPDX-License-Identifier: Apache-2.0
"""FAT12, FAT16 and FAT32: the boot sector, the label in the root folder, and the free clusters of the first table.

Source  Microsoft Extensible Firmware Initiative FAT32 File System Specification.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.guest.file_system import FileSystem
from deltaimg.guest.window import NOT_RECOGNISED, Window, decode_text

_FAT12_CLUSTERS = 4085
_MOST_TABLE_BYTES = 1 << 30
_VOLUME_ID, _LONG_NAME = 0x08, 0x0F
_MOST_ROOT_BYTES = 1 << 20


class FatLayout(Struct, frozen=True):
    """Where the parts of a FAT file system are, in bytes from its start."""

    bits: int
    """Of an entry of the table: 12, 16 or 32."""
    cluster_bytes: int
    clusters: int
    table_offset: int
    table_bytes: int
    tables: int
    root_offset: int
    root_bytes: int
    """Of FAT32 the first cluster of the root folder."""
    data_offset: int
    size_bytes: int


def read_layout(window: Window) -> FatLayout | None:
    """Return the layout of the FAT file system in a window; None where there is none."""
    raw = window.read(0, 512)
    sector, per_cluster, reserved, tables, root_entries, total16 = struct.unpack_from("<HBHBHH", raw, 11)
    (table16,) = struct.unpack_from("<H", raw, 22)
    (total32, table32) = struct.unpack_from("<II", raw, 32)
    is_sane = sector in (512, 1024, 2048, 4096) and per_cluster and not per_cluster & (per_cluster - 1)
    if raw[510:] != b"\x55\xaa" or not is_sane or tables not in (1, 2) or not reserved or raw[0] not in (0xEB, 0xE9):
        return None
    if raw[54:57] != b"FAT" and raw[82:87] != b"FAT32":
        return None
    table_sectors, total = table16 or table32, total16 or total32
    root_sectors = -(-root_entries * 32 // sector)
    first = reserved + tables * table_sectors + root_sectors
    clusters = (total - first) // per_cluster
    if clusters < 1 or total * sector > window.size_bytes:
        return None
    # As Linux has it: FAT32 may have as few clusters as FAT16.
    bits = 32 if not table16 else 12 if clusters < _FAT12_CLUSTERS else 16
    if table_sectors * sector * 8 < (clusters + 2) * bits:
        return None
    cluster_bytes = per_cluster * sector
    root_offset, root_bytes = (reserved + tables * table_sectors) * sector, root_sectors * sector
    if bits == 32:
        (root_cluster,) = struct.unpack_from("<I", raw, 44)
        root_offset, root_bytes = first * sector + (root_cluster - 2) * cluster_bytes, cluster_bytes
    return FatLayout(
        bits=bits,
        cluster_bytes=cluster_bytes,
        clusters=clusters,
        table_offset=reserved * sector,
        table_bytes=table_sectors * sector,
        tables=tables,
        root_offset=root_offset,
        root_bytes=root_bytes,
        data_offset=first * sector,
        size_bytes=total * sector,
    )


def recognise(window: Window) -> FileSystem | None:
    """Return the FAT in a window; None where there is none. Raises one of NOT_RECOGNISED where it is cut short."""
    layout = read_layout(window)
    if layout is None:
        return None
    raw = window.read(0, 512)
    serial, label = (raw[67:71], raw[71:82]) if layout.bits == 32 else (raw[39:43], raw[43:54])
    root_label = ""
    with suppress(*NOT_RECOGNISED):
        root_label = _find_label(window, layout)
    plain = decode_text(label, "ascii")
    (number,) = struct.unpack("<I", serial)
    free = find_free_clusters(window, layout)
    return FileSystem(
        kind="vfat",
        label=root_label or ("" if plain == "NO NAME" else plain),
        uuid=f"{number >> 16:04X}-{number & 0xFFFF:04X}",
        size_bytes=layout.size_bytes,
        block_bytes=layout.cluster_bytes,
        free_bytes=int(free.sum()) * layout.cluster_bytes,
    )


def find_free_clusters(window: Window, layout: FatLayout) -> npt.NDArray[np.bool_]:
    """Return for each cluster whether the first table has it free; raises ValueError."""
    entries = layout.clusters + 2
    length = -(-entries * layout.bits // 8)
    if length > _MOST_TABLE_BYTES:
        raise ValueError("a table that is too large")
    raw = window.read(layout.table_offset, length + (layout.bits == 12))
    if layout.bits == 12:
        bits = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")[: entries * 12].reshape(-1, 12)
        is_used: npt.NDArray[np.bool_] = np.any(bits, axis=1)
        return ~is_used[2:]
    values = np.frombuffer(raw, "<u2" if layout.bits == 16 else "<u4", entries)[2:]
    found: npt.NDArray[np.bool_] = (values & (0xFFFF if layout.bits == 16 else 0x0FFFFFFF)) == 0
    return found


def _find_label(window: Window, layout: FatLayout) -> str:
    for entry in _read_root(window, layout):
        if entry[11] & _LONG_NAME == _VOLUME_ID:
            return decode_text(entry[:11], "ascii")
    return ""


def _read_root(window: Window, layout: FatLayout) -> Iterator[bytes]:
    raw = window.read(layout.root_offset, min(layout.root_bytes, _MOST_ROOT_BYTES))
    for offset in range(0, len(raw), 32):
        if raw[offset] == 0:
            return
        if raw[offset] != 0xE5:
            yield raw[offset : offset + 32]
