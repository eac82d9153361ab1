# SPDX-License-Identifier: Apache-2.0
"""What a repair did, and what is still damaged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deltaimg.describe.parts import describe_damage

if TYPE_CHECKING:
    from deltaimg.engine.repair.run import RepairReport


def describe_repair(report: RepairReport) -> dict[str, object]:
    """Return a report, or a plan where it was a dry run."""
    return {
        "dry_run": report.is_dry_run,
        "copied": report.copied,
        "recovered": report.recovered,
        "quarantined": report.quarantined,
        "salvaged_records": report.salvaged_records,
        "remade_records": report.remade_records,
        "lost_records": report.lost_records,
        "indexed_packs": report.indexed_packs,
        "new_indexes": report.new_indexes,
        "damage": [
            {
                "snapshot": each.ref.id,
                "image": each.ref.image,
                "is_whole": each.is_whole,
                "extents": describe_damage(each.extents),
            }
            for each in report.damage
        ],
        "duration_s": report.duration_s,
    }
