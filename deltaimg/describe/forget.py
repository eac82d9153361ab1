# SPDX-License-Identifier: Apache-2.0
"""What was forgotten of each image, and what that frees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deltaimg.describe.parts import describe_time
from deltaimg.describe.prune import describe_prune

if TYPE_CHECKING:
    from deltaimg.engine.prune.run import PruneResult
    from deltaimg.engine.retention.forget import Forgotten
    from deltaimg.repo.retention import Verdict


def describe_forgotten(found: list[Forgotten], pruned: PruneResult | None, *, is_dry_run: bool) -> dict[str, Any]:
    """Return the outcome of a forget, and of the prune that followed it."""
    images = [_describe_image(each, is_dry_run=is_dry_run) for each in found]
    described = {"images": images, "prune": None if pruned is None else describe_prune(pruned)}
    return described | ({"frees_bytes": sum_reclaimable(found)} if is_dry_run else {})


def sum_reclaimable(found: list[Forgotten]) -> int | None:
    """Return what some images free together, None if it is not known."""
    if any(each.plan is not None and each.reclaimable is None for each in found):
        return None
    return sum(group.reclaimable_bytes for each in found for group in each.reclaimable or ())


def _describe_image(found: Forgotten, *, is_dry_run: bool) -> dict[str, Any]:
    """Return what became of an image as a JSON object."""
    if found.plan is None:
        return {"image": found.image, "error": str(found.error)}
    described: dict[str, Any] = {
        "image": found.image,
        "dry_run": is_dry_run,
        "kept": len(found.plan.kept),
        "forgotten": len(found.plan.forgotten),
        "snapshots": [_describe_verdict(each) for each in found.plan.verdicts],
    }
    if found.reclaimable is None:
        return described
    groups = [
        {"snapshots": [ref.id for ref in each.refs], "frees_bytes": each.reclaimable_bytes}
        for each in found.reclaimable
    ]
    return described | {"frees_bytes": sum_reclaimable([found]), "groups": groups}


def _describe_verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "snapshot": verdict.ref.id,
        **describe_time("time", verdict.ref.taken_at),
        "keep": verdict.is_kept,
        "rules": list(verdict.rules),
    }
