# SPDX-License-Identifier: Apache-2.0
"""What of an image is free by the file systems on it, and why not more: what cannot be shown to be free is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from deltaimg.guest import btrfs_free, ext_free, fat_free, ntfs_free, swap, xfs_free
from deltaimg.guest.examine import GuestLayout, Volume, examine, recognise_all
from deltaimg.guest.free_blocks import FreeBlocks
from deltaimg.guest.signatures import find_other_owner
from deltaimg.guest.window import NOT_RECOGNISED, ByteSource, Window
from deltaimg.image.extents import FREE, NO_BOUNDS, Bounds, Extents, merge_bounds

_FINDERS: dict[str, Callable[[Window], FreeBlocks | str]] = {
    "ext2": ext_free.find_free,
    "ext3": ext_free.find_free,
    "ext4": ext_free.find_free,
    "btrfs": btrfs_free.find_free,
    "vfat": fat_free.find_free,
    "ntfs": ntfs_free.find_free,
    "xfs": xfs_free.find_free,
    "swap": swap.find_free,
}
"""By the kind of file system. Each has its rule in its module."""


class FreeSpace(Struct, frozen=True):
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
    for volume, bounds, reason in _look(source, examine(source, extents)):
        parts.append(bounds)
        if reason:
            reasons.append(f"{name_volume(volume)}: {reason}")
    return FreeSpace(merge_bounds(np.concatenate(parts)), tuple(reasons))


def count_skippable(source: ByteSource, extents: Extents, layout: GuestLayout) -> GuestLayout:
    """Return what is on an image, each volume with what of it is free; may raise what its reads raise."""
    volumes = []
    for volume, bounds, reason in _look(source, layout):
        free_bytes = extents.mark_free(bounds).count_bytes(FREE)
        volumes.append(replace(volume, skippable_bytes=free_bytes, kept_reason=reason))
    return replace(layout, volumes=tuple(volumes))


def name_volume(volume: Volume) -> str:
    """Return what to call a volume in a message."""
    kind = volume.file_system.kind if volume.file_system else ""
    if volume.partition is None:
        return kind or "the image"
    return f"partition {volume.partition.number}{f' ({kind})' if kind else ''}"


def _look(source: ByteSource, layout: GuestLayout) -> Iterator[tuple[Volume, Bounds, str]]:
    """Yield each volume with what of it is free, in bytes of the image, and why not more."""
    owner = find_other_owner(Window(source, 0, layout.size_bytes)) if layout.table else ""
    for volume in layout.volumes:
        if owner:
            yield volume, NO_BOUNDS, f"the image has a signature of {owner}"
        elif other := next((each for each in layout.volumes if _overlap(volume, each)), None):
            yield volume, NO_BOUNDS, f"it overlaps {name_volume(other)}"
        elif isinstance(found := _ask_file_system(source, volume), str):
            yield volume, NO_BOUNDS, found
        else:
            kept = f"{found.kept_groups} block groups are kept: what they say of free space is not right"
            yield volume, merge_bounds(found.bounds + volume.start), kept if found.kept_groups else ""


def _overlap(volume: Volume, other: Volume) -> bool:
    return volume is not other and max(volume.start, other.start) < min(volume.end, other.end)


def _ask_file_system(source: ByteSource, volume: Volume) -> FreeBlocks | str:
    if volume.file_system is None:
        return "no file system that is known"
    kind, window = volume.file_system.kind, Window(source, volume.start, volume.end)
    finder = _FINDERS.get(kind)
    if finder is None:
        return f"free space of {kind} is not known here"
    others = (each.kind for each in recognise_all(window) if each.kind != kind)
    if other := find_other_owner(window) or next(others, ""):
        return f"it has a signature of {other}, too: which of both is right is not known"
    try:
        return finder(window)
    except NOT_RECOGNISED:
        return "its structures make no sense"
