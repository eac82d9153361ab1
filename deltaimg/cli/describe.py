# SPDX-License-Identifier: Apache-2.0
"""Manifests and extents as programs see them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from deltaimg.format.manifest import Manifest
from deltaimg.model import DamagedExtent


def describe_manifest(manifest: Manifest) -> dict[str, Any]:
    """Return a snapshot as a JSON object; sizes in bytes, time in ISO 8601.

    `pinned` is null, or why it is pinned, which may be an empty text.
    """
    described: dict[str, Any] = msgspec.to_builtins(manifest)
    statistics: dict[str, Any] = described.pop("statistics")
    described["time"] = manifest.taken_at.isoformat()
    described["pinned"] = manifest.pin_reason
    described["kind"] = "full" if manifest.base is None else "incremental"
    identity: dict[str, Any] = {"snapshot": manifest.id}
    return identity | described | statistics


def describe_backup(manifest: Manifest) -> dict[str, Any]:
    """Return the object that `backup --json` ends with."""
    statistics: dict[str, Any] = msgspec.to_builtins(manifest.statistics)
    return {"snapshot": manifest.id, "image": manifest.image, "base": manifest.base} | statistics


def describe_extents(extents: Iterable[tuple[int, int]]) -> list[dict[str, int]]:
    """Return extents, [start, end) in bytes, as JSON objects."""
    return [{"start": start, "end": end} for start, end in extents]


def describe_damage(extents: Iterable[DamagedExtent]) -> list[dict[str, int | str]]:
    """Return damaged extents as JSON objects, each with the reason."""
    return [{"start": each.start, "end": each.end, "reason": each.reason} for each in extents]
