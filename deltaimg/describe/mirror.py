# SPDX-License-Identifier: Apache-2.0
"""What a mirror did, or would do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deltaimg.engine.mirror.request import MirrorResult


def describe_mirror(result: MirrorResult) -> dict[str, object]:
    """Return the outcome of a mirror for programs."""
    return {
        "dry_run": result.is_dry,
        "image_bytes": result.image_bytes,
        "mode": result.mode,
        "recovered": result.recovered or None,
        "changed_blocks": result.changed_blocks,
        "zeroed_blocks": result.zeroed_blocks,
        "moved_blocks": result.moved_blocks,
        "literal_bytes": result.literal_bytes,
        "copy_read_bytes": result.copy_read_bytes,
        "verified_bytes": result.verified_bytes,
        "sent_bytes": result.sent_bytes,
        "received_bytes": result.received_bytes,
        "duration_s": round(result.duration_s, 3),
    }
