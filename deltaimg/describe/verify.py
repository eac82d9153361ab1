# SPDX-License-Identifier: Apache-2.0
"""What a verify found, and how an image differs from a snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deltaimg.describe.parts import describe_damage, describe_extents, describe_time

if TYPE_CHECKING:
    from deltaimg.engine.restore.compare import ComparedImage
    from deltaimg.engine.restore.verify import VerifyReport


def describe_verify(results: VerifyReport) -> dict[str, object]:
    """Return each snapshot's result, and what share of all content was verified, and since when."""
    share = results.verified_share
    is_damaged = any(each.damage for each in results)
    snapshots = [
        {
            "snapshot": each.ref.id,
            "image": each.ref.image,
            "records": each.records,
            "records_total": each.records_total,
            "verified_bytes": each.verified_bytes,
            "duration_s": each.duration_s,
            "damage": describe_damage(each.damage),
        }
        for each in results
    ]
    shares: dict[str, object] = {
        **describe_time("verified_since", None if is_damaged else share.verified_since),
        "never_percent": round(share.never_percent, 3),
        "run_percent": round(share.run_percent, 3),
    }
    return {"snapshots": snapshots, "verified_share": shares}


def describe_comparison(found: ComparedImage, image: str) -> dict[str, object]:
    """Return where an image differs from a snapshot.

    Args:
        image: its path.
    """
    return {
        "snapshot": found.manifest.id,
        "against": image,
        "read_bytes": found.read_bytes,
        "differing_bytes": sum(extent.length for extent in found.differing),
        "tail_bytes": found.tail_bytes,
        "extents": describe_extents(found.differing),
        "duration_s": found.duration_s,
    }
