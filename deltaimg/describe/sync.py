# SPDX-License-Identifier: Apache-2.0
"""A sync, and what it is going to send."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deltaimg.describe.parts import describe_time

if TYPE_CHECKING:
    from collections.abc import Iterable

    from deltaimg.engine.sync.comparison import Compared
    from deltaimg.engine.sync.request import SyncEstimate, SyncResult
    from deltaimg.engine.sync.selection import Failure
    from deltaimg.repo.repository import SnapshotRef


def describe_sync(result: SyncResult) -> dict[str, object]:
    """Return the outcome of a sync for programs."""
    return {
        "dry_run": False,
        "copied": _describe_refs(result.copied),
        "there": result.there_count,
        "failed": _describe_failures(result.failed),
        "forgotten": _describe_refs(result.forgotten),
        "stored_bytes": result.stored_bytes,
        "arrived_bytes": result.arrived_bytes,
        "compared": _describe_compared(result.compared),
        "duration_s": round(result.duration_s, 3),
    }


def describe_estimate(estimate: SyncEstimate) -> dict[str, object]:
    """Return what a sync would do for programs."""
    return {
        "dry_run": True,
        "is_other_family": estimate.is_other_family,
        "copied": _describe_refs(estimate.snapshots),
        "there": estimate.there_count,
        "failed": _describe_failures(estimate.failed),
        "forgotten": _describe_refs(estimate.forgotten),
        "sent_bytes": estimate.amount.sent_bytes,
        "sent_objects": estimate.amount.objects,
        "arrived_bytes": estimate.amount.arrived_bytes,
    }


def _describe_compared(compared: Compared) -> dict[str, object]:
    return {
        "objects": compared.objects,
        "by_digest": compared.digest_objects,
        "read": compared.read_objects,
        "sampled": compared.sampled_objects,
        "listed": compared.listed_objects,
        "read_bytes": compared.read_bytes,
        "detects_1_percent": round(compared.detects(), 4) if compared.objects else None,
    }


def _describe_refs(refs: Iterable[SnapshotRef]) -> list[dict[str, object]]:
    return [{"snapshot": ref.id, "image": ref.image, **describe_time("time", ref.taken_at)} for ref in refs]


def _describe_failures(failures: Iterable[Failure]) -> list[dict[str, object]]:
    return [{"snapshot": each.ref.id, "image": each.ref.image, "reason": str(each.error)} for each in failures]
