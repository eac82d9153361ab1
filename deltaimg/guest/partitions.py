# SPDX-License-Identifier: Apache-2.0
"""Partition tables: MBR with logical partitions, and GPT.

Source  UEFI Specification, chapter 5; the MBR as fdisk and Linux (block/partitions/msdos.c) read it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from uuid import UUID

from msgspec import Struct

from deltaimg.guest.window import NOT_RECOGNISED, Window, decode_text

_MBR_ENTRY = struct.Struct("<B3xB3xII")
_GPT_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_GPT_ENTRY = struct.Struct("<16s16sQQQ72s")
_EXTENDED = (0x05, 0x0F, 0x85)
_PROTECTIVE = 0xEE
_FIRST_LOGICAL = 5
_MOST_LOGICAL = 128
_MOST_ENTRIES, _MOST_ENTRY_BYTES = 1024, 4096
_SECTORS = (512, 4096)


class Partition(Struct, frozen=True):
    """One partition."""

    number: int
    """As in the name of its device: logical ones begin with 5."""
    start: int
    end: int
    """In bytes of the image."""
    type: str
    """Two digits of an MBR, or the GUID of a GPT, in lower case."""
    name: str = ""


class PartitionTable(Struct, frozen=True):
    """A partition table."""

    kind: str
    """`mbr` or `gpt`."""
    partitions: tuple[Partition, ...]
    """In the order of their numbers."""


def read_table(image: Window) -> PartitionTable | None:
    """Return the partition table of an image, None where there is none."""
    for sector_bytes in _SECTORS:
        with suppress(*NOT_RECOGNISED):
            if not any(entry[1] == _PROTECTIVE for entry in _read_mbr_sector(image, 0)):
                break
            for offset in (sector_bytes, image.size_bytes - sector_bytes):
                with suppress(*NOT_RECOGNISED):
                    return PartitionTable("gpt", tuple(_read_gpt(image, offset, sector_bytes)))
    with suppress(*NOT_RECOGNISED):
        found = tuple(sorted(_read_mbr(image), key=lambda each: each.number))
        if found:
            return PartitionTable("mbr", found)
    return None


def _read_gpt(image: Window, offset: int, sector_bytes: int) -> Iterator[Partition]:
    """Yield the partitions of a GPT; raises ValueError where its header at `offset` is none, or damaged."""
    raw = image.read(offset, sector_bytes)
    header = _GPT_HEADER.unpack_from(raw)
    magic, _, header_bytes, checksum, _, own, _, _, _, _, entries_at, count, entry_bytes, entries_checksum = header
    if magic != b"EFI PART" or not _GPT_HEADER.size <= header_bytes <= sector_bytes or own * sector_bytes != offset:
        raise ValueError("no GPT")
    if zlib.crc32(raw[:16] + bytes(4) + raw[20:header_bytes]) != checksum:
        raise ValueError("a damaged GPT")
    if count > _MOST_ENTRIES or not _GPT_ENTRY.size <= entry_bytes <= _MOST_ENTRY_BYTES:
        raise ValueError("an odd GPT")
    entries = image.read(entries_at * sector_bytes, count * entry_bytes)
    if zlib.crc32(entries) != entries_checksum:
        raise ValueError("a damaged GPT")
    for number in range(count):
        kind, _, first, last, _, name = _GPT_ENTRY.unpack_from(entries, number * entry_bytes)
        start, end = first * sector_bytes, (last + 1) * sector_bytes
        if any(kind) and 0 < start < end <= image.size_bytes:
            yield Partition(number + 1, start, end, str(UUID(bytes_le=kind)), decode_text(name, "utf-16-le"))


def _read_mbr(image: Window) -> Iterator[Partition]:
    """Yield the partitions of an MBR; raises ValueError where it is none."""
    entries = _read_mbr_sector(image, 0)
    if any(status not in (0, 0x80) for status, _, _, _ in entries):
        raise ValueError("a boot sector of something else")
    for number, (_, kind, first, count) in enumerate(entries, 1):
        if kind == 0 or count == 0:
            continue
        made = _make_mbr_partition(image, number, kind, first, count)
        if kind in _EXTENDED:
            yield from _read_logical(image, first)
        elif made is not None:
            yield made


def _read_logical(image: Window, first: int) -> Iterator[Partition]:
    """Yield logical partitions: each has a sector of its own before it, which says where the next one of these is."""
    place, seen = first, set[int]()
    while place not in seen and len(seen) < _MOST_LOGICAL:
        seen.add(place)
        try:
            entries = _read_mbr_sector(image, place * 512)
        except NOT_RECOGNISED:
            return
        _, kind, offset, count = entries[0]
        if kind and count and kind not in _EXTENDED:
            made = _make_mbr_partition(image, _FIRST_LOGICAL + len(seen) - 1, kind, place + offset, count)
            if made is not None:
                yield made
        following = [entry[2] for entry in entries[1:] if entry[1] in _EXTENDED and entry[3]]
        if not following:
            return
        place = first + following[0]


def _read_mbr_sector(image: Window, offset: int) -> list[tuple[int, int, int, int]]:
    """Return status, type, first sector and count of the four entries; raises ValueError."""
    raw = image.read(offset, 512)
    if raw[510:] != b"\x55\xaa":
        raise ValueError("no partition table")
    return [_MBR_ENTRY.unpack_from(raw, 446 + 16 * number) for number in range(4)]


def _make_mbr_partition(image: Window, number: int, kind: int, first: int, count: int) -> Partition | None:
    start, end = first * 512, min((first + count) * 512, image.size_bytes)
    return Partition(number, start, end, f"{kind:02x}") if 0 < start < end else None
