# SPDX-License-Identifier: Apache-2.0
"""Partitions and file systems of an image, each with what the image holds of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

import numpy as np
from msgspec import Struct

from deltaimg.guest import btrfs, ext, fat, lvm, ntfs, swap, xfs
from deltaimg.guest.file_system import FileSystem
from deltaimg.guest.partitions import Partition, read_table
from deltaimg.guest.window import NOT_RECOGNISED, ByteSource, Window
from deltaimg.image.extents import EMPTY, HOLE, ZERO, Extents, ExtentStatus

_Recogniser = Callable[[Window], FileSystem | None]

_IN_SECTOR_0: tuple[_Recogniser, ...] = (ntfs.recognise, fat.recognise)
"""What has its own boot sector where a partition table would be."""
_ELSEWHERE = (lvm.recognise, xfs.recognise, ext.recognise, btrfs.recognise, swap.recognise)


class Volume(Struct, frozen=True):
    """A partition, or a whole image without partitions."""

    partition: Partition | None
    start: int
    end: int
    file_system: FileSystem | None
    """None where none is recognised."""
    zero_bytes: int
    hole_bytes: int
    """What of it is known to read as zeros, and is allocated or not."""
    skippable_bytes: int | None = None
    """What of the rest is free, and would be left out by `--free-space skip`; None where that was not looked for."""
    kept_reason: str = ""
    """Why that is not more, for people."""


class GuestLayout(Struct, frozen=True):
    """What is on an image."""

    size_bytes: int
    table: str | None
    """`mbr`, `gpt`; None where there is no partition table."""
    volumes: tuple[Volume, ...]


def examine(source: ByteSource, extents: Extents) -> GuestLayout:
    """Return what is on an image; may raise what its reads raise.

    Args:
        extents: of the whole image.
    """
    whole = Window(source, 0, extents.size_bytes)
    found = _recognise(whole, _IN_SECTOR_0)
    table = None if found else read_table(whole)
    if table is None:
        found = found or _recognise(whole, _ELSEWHERE)
        return GuestLayout(extents.size_bytes, None, (_make_volume(None, whole, found, extents),))
    volumes = []
    for partition in table.partitions:
        window = Window(source, partition.start, partition.end)
        found = _recognise(window, (*_IN_SECTOR_0, *_ELSEWHERE))
        volumes.append(_make_volume(partition, window, found, extents))
    return GuestLayout(extents.size_bytes, table.kind, tuple(volumes))


def recognise_all(window: Window) -> Iterator[FileSystem]:
    """Yield every file system whose superblock is in a window; may raise what its reads raise."""
    return _try_all(window, (*_IN_SECTOR_0, *_ELSEWHERE))


def _recognise(window: Window, kinds: tuple[_Recogniser, ...]) -> FileSystem | None:
    return next(_try_all(window, kinds), None)


def _try_all(window: Window, kinds: tuple[_Recogniser, ...]) -> Iterator[FileSystem]:
    for recognise in kinds:
        with suppress(*NOT_RECOGNISED):
            found = recognise(window)
            if found is not None and found.size_bytes > 0 and found.block_bytes > 0:
                yield found


def _make_volume(partition: Partition | None, window: Window, found: FileSystem | None, extents: Extents) -> Volume:
    zero, hole = (_count_inside(extents, status, window) for status in (ZERO, HOLE))
    return Volume(partition, window.start, window.end, found, zero, hole)


def _count_inside(extents: Extents, status: ExtentStatus, window: Window) -> int:
    assert status in EMPTY
    bounds = np.clip(extents.find(status), window.start, window.end)
    return int((bounds[:, 1] - bounds[:, 0]).sum())
