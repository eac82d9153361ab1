# SPDX-License-Identifier: Apache-2.0
"""A backup, and what one would store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from deltaimg.describe.parts import describe_extents
from deltaimg.describe.snapshots import describe_tracking
from deltaimg.format.manifest import Manifest

if TYPE_CHECKING:
    from deltaimg.engine.backup.forecast import BackupForecast


def describe_backup(manifest: Manifest) -> dict[str, Any]:
    """Return the object that `backup --json` ends with."""
    statistics: dict[str, Any] = msgspec.to_builtins(manifest.statistics)
    described = {"snapshot": manifest.id, "image": manifest.image, "base": manifest.base} | statistics
    return described | {
        "unreadable": describe_extents(manifest.unreadable),
        "freeze": msgspec.to_builtins(manifest.freeze),
        "tracking": describe_tracking(manifest.tracking),
        "free_space": msgspec.to_builtins(manifest.free_space),
    }


def describe_forecast(planned: BackupForecast, image: str) -> dict[str, Any]:
    """Return the object that `backup --dry-run --json` ends with: as of a backup, but for what is only known afterwards."""
    statistics: dict[str, Any] = msgspec.to_builtins(planned.statistics)
    for name in ("stored_bytes", "rewritten_bytes", "rewritten_payload_bytes"):
        del statistics[name]
    base = None if planned.base is None else planned.base.id
    described = {"dry_run": True, "image": image, "base": base} | statistics
    return described | {
        "unreadable": describe_extents(planned.unreadable),
        "tracking": describe_tracking(planned.tracking),
        "free_space": msgspec.to_builtins(planned.free_space),
    }
