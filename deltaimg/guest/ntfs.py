# SPDX-License-Identifier: Apache-2.0
"""NTFS: the boot sector, and of the master file table the records of `$Volume` (label, dirty flag) and `$Bitmap`.

Source  "NTFS Documentation" of the Linux-NTFS project.
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

_VOLUME, BITMAP = 3, 6
_VOLUME_NAME, _VOLUME_INFORMATION, DATA, _END = 0x60, 0x70, 0x80, 0xFFFFFFFF
_DIRTY = 0x1
_MOST_BITMAP_BYTES = 1 << 30
_FIXUP_SECTOR = 512


class NtfsLayout(Struct, frozen=True):
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
        for attribute in read_attributes(window, layout, _VOLUME):
            if attribute.kind == _VOLUME_NAME:
                label = decode_text(attribute.read(), "utf-16-le")
            if attribute.kind == _VOLUME_INFORMATION:
                is_clean = not struct.unpack_from("<H", attribute.read(), 10)[0] & _DIRTY
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
    for attribute in read_attributes(window, layout, BITMAP):
        if not attribute.is_named(DATA):
            continue
        value = attribute.read()
        if 8 * len(value) >= layout.clusters:
            bits = np.unpackbits(np.frombuffer(value, np.uint8), count=layout.clusters, bitorder="little")
            free: npt.NDArray[np.bool_] = bits == 0
            return free
    raise ValueError("no bitmap")


class Attribute(Struct, frozen=True):
    """An attribute of a file."""

    window: Window
    layout: NtfsLayout
    raw: bytes
    """As its record has it."""

    @property
    def kind(self) -> int:
        """Its type."""
        kind: int = struct.unpack_from("<I", self.raw)[0]
        return kind

    def is_named(self, kind: int, name: str = "") -> bool:
        """Return whether it is the attribute of this type and name."""
        length, offset = struct.unpack_from("<BH", self.raw, 9)
        return self.kind == kind and self.raw[offset : offset + 2 * length] == name.encode("utf-16-le")

    def read(self, most_bytes: int = _MOST_BITMAP_BYTES) -> bytes:
        """Return the beginning of its value; raises one of NOT_RECOGNISED."""
        if not self.raw[8]:
            length, offset = struct.unpack_from("<IH", self.raw, 16)
            if offset + length > len(self.raw):
                raise ValueError("a value that is too long")
            return self.raw[offset : offset + min(length, most_bytes)]
        (size_bytes,) = struct.unpack_from("<Q", self.raw, 48)
        wanted, value = min(size_bytes, most_bytes), bytearray()
        for first, count in self.list_runs():
            missing = wanted - len(value)
            if missing <= 0:
                break
            value += self.window.read(
                first * self.layout.cluster_bytes, min(missing, count * self.layout.cluster_bytes)
            )
        if len(value) < wanted:
            raise ValueError("a value that is cut short")
        return bytes(value)

    def list_runs(self) -> list[tuple[int, int]]:
        """Return first cluster and count of each run of a value that has clusters of its own; raises one of NOT_RECOGNISED."""
        if not self.raw[8]:
            return []
        first, _ = struct.unpack_from("<QQ", self.raw, 16)
        (position,) = struct.unpack_from("<H", self.raw, 32)
        if first:
            raise ValueError("a part of a value")
        runs, cluster = [], 0
        while self.raw[position]:
            count_bytes, place_bytes = self.raw[position] & 15, self.raw[position] >> 4
            fields = self.raw[position + 1 : position + 1 + count_bytes + place_bytes]
            if not place_bytes or len(fields) < count_bytes + place_bytes:
                raise ValueError("a hole, or a run that is cut short")
            count = int.from_bytes(fields[:count_bytes], "little")
            cluster += int.from_bytes(fields[count_bytes:], "little", signed=True)
            if not 0 <= cluster <= cluster + count <= self.layout.clusters:
                raise ValueError("a run outside of the file system")
            runs.append((cluster, count))
            position += 1 + count_bytes + place_bytes
        return runs


def read_attributes(window: Window, layout: NtfsLayout, number: int) -> Iterator[Attribute]:
    """Yield the attributes of a record of the table; raises one of NOT_RECOGNISED."""
    raw = _read_record(window, layout, number)
    (offset,) = struct.unpack_from("<H", raw, 20)
    while True:
        kind, length = struct.unpack_from("<II", raw, offset) if offset + 8 <= len(raw) else (_END, 0)
        if kind == _END:
            return
        if length < 16 or offset + length > len(raw):
            raise ValueError("an attribute that is too long")
        yield Attribute(window, layout, raw[offset : offset + length])
        offset += length


def _read_record(window: Window, layout: NtfsLayout, number: int) -> bytes:
    place = layout.table_offset + number * layout.record_bytes
    return restore_sectors(window.read(place, layout.record_bytes), b"FILE")


def restore_sectors(raw: bytes, magic: bytes) -> bytes:
    """Return a structure with its sectors as they were before they were protected; raises ValueError if it was torn."""
    content = bytearray(raw)
    its_magic, fixup_offset, fixup_count = struct.unpack_from("<4sHH", raw)
    if its_magic != magic or fixup_count != len(raw) // _FIXUP_SECTOR + 1:
        raise ValueError("no such structure")
    mark = raw[fixup_offset : fixup_offset + 2]
    for sector in range(1, fixup_count):
        end = sector * _FIXUP_SECTOR
        if raw[end - 2 : end] != mark:
            raise ValueError("a structure that was torn")
        content[end - 2 : end] = raw[fixup_offset + 2 * sector : fixup_offset + 2 * sector + 2]
    return bytes(content)
