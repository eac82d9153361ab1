# SPDX-License-Identifier: Apache-2.0
"""Manifests as people and programs see them."""

from __future__ import annotations

from typing import Any

import msgspec

from deltaimg.format.manifest import Manifest


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
