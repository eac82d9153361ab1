# SPDX-License-Identifier: Apache-2.0
"""Partitions and file systems of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deltaimg.describe.text import format_bytes
from deltaimg.guest.free_space import name_volume

if TYPE_CHECKING:
    from deltaimg.guest.examine import GuestLayout, Volume


def describe_guest(layout: GuestLayout) -> dict[str, object]:
    """Return what is on an image as a JSON object."""
    return {
        "size_bytes": layout.size_bytes,
        "partition_table": layout.table,
        "volumes": [_describe_volume(each) for each in layout.volumes],
    }


def _describe_volume(volume: Volume) -> dict[str, object]:
    found, partition = volume.file_system, volume.partition
    return {
        "number": partition and partition.number,
        "start": volume.start,
        "end": volume.end,
        "type": partition and partition.type,
        "name": partition and partition.name,
        "file_system": found and found.kind,
        "label": found and found.label,
        "uuid": found and found.uuid,
        "block_bytes": found and found.block_bytes,
        "used_bytes": found and found.used_bytes,
        "free_bytes": found and found.free_bytes,
        "is_clean": found and found.is_clean,
        "zero_bytes": volume.zero_bytes,
        "hole_bytes": volume.hole_bytes,
        "skippable_bytes": volume.skippable_bytes,
        "kept_reason": volume.kept_reason,
    }


def tabulate_guest(layout: GuestLayout) -> tuple[tuple[str, ...], list[list[str]]]:
    """Return headings and rows of a table of volumes, for people."""
    headings = (
        "partition",
        ">from byte",
        ">size",
        "type",
        "file system",
        "label",
        ">used",
        ">free",
        ">zeros",
        ">holes",
        ">can skip",
    )
    rows = []
    for each in layout.volumes:
        found, partition = each.file_system, each.partition
        rows.append(
            [
                str(partition.number) if partition else "all",
                str(each.start),
                format_bytes(each.end - each.start),
                partition.type[:8] if partition else "",
                found.kind if found else "none that is known",
                (found.label if found else "") or (partition.name if partition else ""),
                _format_known(found.used_bytes if found else None),
                _format_known(found.free_bytes if found else None),
                format_bytes(each.zero_bytes),
                format_bytes(each.hole_bytes),
                _format_known(each.skippable_bytes),
            ]
        )
    return headings, rows


def explain_kept(layout: GuestLayout) -> list[str]:
    """Return why no more can be skipped: a line for each volume of which something is kept that may be free."""
    return [f"{name_volume(each)}: {each.kept_reason}" for each in layout.volumes if each.kept_reason]


def _format_known(size_bytes: int | None) -> str:
    return "?" if size_bytes is None else format_bytes(size_bytes)
