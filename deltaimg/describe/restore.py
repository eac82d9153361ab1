# SPDX-License-Identifier: Apache-2.0
"""A restore."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deltaimg.engine.restore.run import RestoreResult


def describe_restored(result: RestoreResult, target: str) -> dict[str, Any]:
    """Return the object that `restore --json` ends with, of a restore without damage."""
    return {
        "snapshot": result.manifest.id,
        "target": target,
        "apparent_bytes": result.manifest.size_bytes,
        "data_bytes": result.data_bytes,
        "tail_bytes": result.tail_bytes,
        "read_bytes": result.read_bytes,
        "plan_s": result.plan_s,
        "duration_s": result.duration_s,
        "damage": [],
    }
