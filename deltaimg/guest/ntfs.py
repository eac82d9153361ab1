# SPDX-License-Identifier: Apache-2.0
"""NTFS: the boot sector, and of the master file table the records of `$Volume` (label, dirty flag) and `$Bitmap`.

Source  "NTFS Documentation" of the Linux-NTFS project.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deltaimg.guest.file_system import FileSystem
from deltaimg.guest.window import NOT_RECOGNISED, Window, decode_text

_VOLUME, _BITMAP = 3, 6
_VOLUME_NAME, _VOLUME_INFORMATION, _DATA, _END = 0x60, 0x70, 0x80, 0xFFFFFFFF
_DIRTY = 0x1
_MOST_BITMAP_BYTES = 1 << 30
_FIXUP_SECTOR = 512


@dataclass(frozen=True, slots=True)
class NtfsLayout:
    """What the boot sector says."""

    cluster_bytes: int
    clusters: int
    table_offset: int
    """Of the master file table, in bytes."""
    record_bytes: int
    serial: int


def read_layout(window: Window) -> NtfsLayout | None:
    """Return the layout of the NTFS in a window; None where there is none."""
    raw = window.read(0, 512)
    sector, per_cluster = struct.unpack_from("<HB", raw, 11)
    if raw[3:11] != b"NTFS    " or sector not in (256, 512, 1024, 2048, 4096) or not per_cluster:
        return None
    sectors_per_cluster = per_cluster if per_cluster <= 0x80 else 1 << (256 - per_cluster)
    total, table_cluster = struct.unpack_from("<QQ", raw, 40)
    (record_size,) = struct.unpack_from("<b", raw, 64)
    (serial,) = struct.unpack_from("<Q", raw, 72)
    cluster_bytes = sector * sectors_per_cluster
    record_bytes = 1 << -record_size if record_size < 0 else record_size * cluster_bytes
    if cluster_bytes > 1 << 21 or cluster_bytes & (cluster_bytes - 1) or not 512 <= record_bytes <= 65536:
        return None
    return NtfsLayout(cluster_bytes, total // sectors_per_cluster, table_cluster * cluster_bytes, record_bytes, serial)


def recognise(window: Window) -> FileSystem | None:
    """Return the NTFS in a window; None where there is none. Raises one of NOT_RECOGNISED where it is cut short."""
    layout = read_layout(window)
    if layout is None:
        return None
    label, free, is_clean = "", None, None
    with suppress(*NOT_RECOGNISED):
        for kind, value in _read_attributes(window, layout, _VOLUME):
            if kind == _VOLUME_NAME:
                label = decode_text(value, "utf-16-le")
            if kind == _VOLUME_INFORMATION:
                is_clean = not struct.unpack_from("<H", value, 10)[0] & _DIRTY
    with suppress(*NOT_RECOGNISED):
        free = int(find_free_clusters(window, layout).sum()) * layout.cluster_bytes
    return FileSystem(
        kind="ntfs",
        label=label,
        uuid=f"{layout.serial:016X}",
        size_bytes=layout.clusters * layout.cluster_bytes,
        block_bytes=layout.cluster_bytes,
        free_bytes=free,
        is_clean=is_clean,
    )


def find_free_clusters(window: Window, layout: NtfsLayout) -> npt.NDArray[np.bool_]:
    """Return for each cluster whether `$Bitmap` has it free; raises ValueError where that cannot be read."""
    if layout.clusters > 8 * _MOST_BITMAP_BYTES:
        raise ValueError("a bitmap that is too large")
    for kind, value in _read_attributes(window, layout, _BITMAP):
        if kind == _DATA and 8 * len(value) >= layout.clusters:
            bits = np.unpackbits(np.frombuffer(value, np.uint8), count=layout.clusters, bitorder="little")
            free: npt.NDArray[np.bool_] = bits == 0
            return free
    raise ValueError("no bitmap")


def _read_attributes(window: Window, layout: NtfsLayout, number: int) -> Iterator[tuple[int, bytes]]:
    """Yield type and value of the nameless attributes of a record of the table; raises one of NOT_RECOGNISED."""
    raw = _read_record(window, layout, number)
    (offset,) = struct.unpack_from("<H", raw, 20)
    while True:
        kind, length, is_elsewhere, name_length = (
            struct.unpack_from("<IIBB", raw, offset) if offset + 4 < len(raw) else (_END, 0, 0, 0)
        )
        if kind == _END:
            return
        if length < 16 or offset + length > len(raw):
            raise ValueError("an attribute that is too long")
        attribute = raw[offset : offset + length]
        if not name_length:
            yield kind, _read_runs(window, layout, attribute) if is_elsewhere else _read_resident(attribute)
        offset += length


def _read_record(window: Window, layout: NtfsLayout, number: int) -> bytes:
    """Return a record of the table, its sectors as they were before they were protected."""
    raw = bytearray(window.read(layout.table_offset + number * layout.record_bytes, layout.record_bytes))
    magic, fixup_offset, fixup_count = struct.unpack_from("<4sHH", raw)
    if magic != b"FILE" or fixup_count != layout.record_bytes // _FIXUP_SECTOR + 1:
        raise ValueError("no record")
    mark = raw[fixup_offset : fixup_offset + 2]
    for sector in range(1, fixup_count):
        end = sector * _FIXUP_SECTOR
        if raw[end - 2 : end] != mark:
            raise ValueError("a record that was torn")
        raw[end - 2 : end] = raw[fixup_offset + 2 * sector : fixup_offset + 2 * sector + 2]
    return bytes(raw)


def _read_resident(attribute: bytes) -> bytes:
    length, offset = struct.unpack_from("<IH", attribute, 16)
    if offset + length > len(attribute):
        raise ValueError("a value that is too long")
    return attribute[offset : offset + length]


def _read_runs(window: Window, layout: NtfsLayout, attribute: bytes) -> bytes:
    """Return a value that is stored in clusters of its own."""
    (first,) = struct.unpack_from("<Q", attribute, 16)
    (runs_offset,) = struct.unpack_from("<H", attribute, 32)
    (size_bytes,) = struct.unpack_from("<Q", attribute, 48)
    if first or size_bytes > _MOST_BITMAP_BYTES:
        raise ValueError("a part of a value, or one that is too long")
    value, cluster, position = bytearray(), 0, runs_offset
    while attribute[position]:
        count_bytes, place_bytes = attribute[position] & 15, attribute[position] >> 4
        fields = attribute[position + 1 : position + 1 + count_bytes + place_bytes]
        if not place_bytes or len(fields) < count_bytes + place_bytes:
            raise ValueError("a hole, or a run that is cut short")
        count = int.from_bytes(fields[:count_bytes], "little")
        cluster += int.from_bytes(fields[count_bytes:], "little", signed=True)
        if len(value) + count * layout.cluster_bytes > size_bytes + layout.cluster_bytes:
            raise ValueError("runs that are longer than the value")
        value += window.read(cluster * layout.cluster_bytes, count * layout.cluster_bytes)
        position += 1 + count_bytes + place_bytes
    if len(value) < size_bytes:
        raise ValueError("a value that is cut short")
    return bytes(value[:size_bytes])
