# SPDX-License-Identifier: Apache-2.0
"""What of an image is free by the file systems on it, and why not more: what cannot be shown to be free is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from deltaimg.guest import ext_free, fat_free
from deltaimg.guest.examine import Volume, examine
from deltaimg.guest.free_blocks import FreeBlocks
from deltaimg.guest.window import NOT_RECOGNISED, ByteSource, Window
from deltaimg.image.extents import NO_BOUNDS, Bounds, Extents, merge_bounds

_FINDERS: dict[str, Callable[[Window], FreeBlocks | str]] = {
    "ext2": ext_free.find_free,
    "ext3": ext_free.find_free,
    "ext4": ext_free.find_free,
    "vfat": fat_free.find_free,
}
"""By the kind of file system. Each has its rule in its module."""


@dataclass(frozen=True, slots=True)
class FreeSpace:
    """What of an image is free."""

    bounds: Bounds
    reasons: tuple[str, ...]
    """Why not more, for people: one for each volume of which something, or everything, is kept for a reason."""


def find_free_space(source: ByteSource, extents: Extents) -> FreeSpace:
    """Return what of an image is free; may raise what its reads raise.

    Args:
        extents: of the whole image.
    """
    parts, reasons = [NO_BOUNDS], []
    for volume in examine(source, extents).volumes:
        found = _find_in_volume(source, volume)
        name = _name(volume)
        if isinstance(found, str):
            reasons.append(f"{name}: {found}")
            continue
        parts.append(found.bounds + volume.start)
        if found.kept_groups:
            reasons.append(f"{name}: {found.kept_groups} block groups are kept: their bitmaps are not right")
    return FreeSpace(merge_bounds(np.concatenate(parts)), tuple(reasons))


def _find_in_volume(source: ByteSource, volume: Volume) -> FreeBlocks | str:
    if volume.file_system is None:
        return "no file system that is known"
    finder = _FINDERS.get(volume.file_system.kind)
    if finder is None:
        return f"free space of {volume.file_system.kind} is not known here"
    try:
        return finder(Window(source, volume.start, volume.end))
    except NOT_RECOGNISED:
        return "its structures make no sense"


def _name(volume: Volume) -> str:
    kind = volume.file_system.kind if volume.file_system else "unknown"
    return kind if volume.partition is None else f"partition {volume.partition.number} ({kind})"
