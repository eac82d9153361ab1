# SPDX-License-Identifier: Apache-2.0
"""A prune, its plan, and what waits to be deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deltaimg.describe.locks import describe_lock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deltaimg.engine.prune.deletion import Waiting
    from deltaimg.engine.prune.plan import PrunePlan
    from deltaimg.engine.prune.run import PruneResult


def describe_prune(result: PruneResult) -> dict[str, object]:
    """Return the outcome of a prune for programs."""
    return {
        "dry_run": False,
        **describe_plan(result.plan),
        "freed_bytes": result.freed_bytes,
        "written_bytes": result.written_bytes,
        "waiting": describe_waiting(result.waiting),
        "duration_s": round(result.duration_s, 3),
    }


def describe_plan(plan: PrunePlan) -> dict[str, object]:
    """Return a plan for programs; sizes are those expected."""
    return {
        "total_bytes": plan.total_bytes,
        "freed_bytes": plan.freed_bytes,
        "written_bytes": plan.written_bytes,
        "cut_records": len(plan.trim.cut),
        "recoded_records": len(plan.trim.recoded),
        "split_records": len(plan.trim.splits.entries),
        "unused_bytes": plan.unused_bytes,
        "dead_packs": len(plan.dead_packs),
        "repacked_packs": len(plan.repacked_packs),
        "indexes": len(plan.indexes),
        "signatures": len(plan.signatures),
        "maps": len(plan.maps),
    }


def describe_waiting(waiting: Sequence[Waiting]) -> list[dict[str, object]]:
    """Return for programs what still waits, and for whom."""
    return [
        {
            "objects": each.objects,
            "bytes": each.stored_bytes,
            "locks": [describe_lock(found) for found in each.locks],
        }
        for each in waiting
    ]
