# SPDX-License-Identifier: Apache-2.0
"""A restore."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deltaimg.describe.parts import describe_damage

if TYPE_CHECKING:
    from deltaimg.api.restore_many import RestoredImages
    from deltaimg.engine.restore.run import RestoreResult


def describe_restored(result: RestoreResult, target: str) -> dict[str, Any]:
    """Return the object that `restore --json` ends with."""
    return {
        "snapshot": result.manifest.id,
        "image": result.manifest.image,
        "target": target,
        "apparent_bytes": result.manifest.size_bytes,
        "data_bytes": result.data_bytes,
        "tail_bytes": result.tail_bytes,
        "read_bytes": result.read_bytes,
        "plan_s": result.plan_s,
        "duration_s": result.duration_s,
        "damage": describe_damage(result.damage),
    }


def describe_restored_images(restored: RestoredImages) -> dict[str, Any]:
    """Return the object that a restore of the newest snapshots of many images prints."""
    return {
        "members": [describe_restored(each, target) for target, each in restored.results.items()],
        "configs": [{"group": name, "config": path} for name, path in restored.config_paths.items()],
        "failed": [{"image": name, "reason": str(error)} for name, error in restored.failed.items()],
    }
