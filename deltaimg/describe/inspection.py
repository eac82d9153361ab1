# SPDX-License-Identifier: Apache-2.0
"""What a snapshot consists of, how two differ, and what a repository holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import to_builtins

from deltaimg.describe.parts import describe_extents

if TYPE_CHECKING:
    from deltaimg.engine.inspect.diff import Difference
    from deltaimg.engine.inspect.run import RepositoryTotals, SnapshotLayout
    from deltaimg.engine.inspect.stored_content import StoredContent


def describe_layout(layout: SnapshotLayout, stored_content: StoredContent | None) -> dict[str, object]:
    """Return what a snapshot consists of, and what its backup stored and why, null where that is not known."""
    return {
        "data_bytes": layout.data_bytes,
        "zero_bytes": layout.zero_bytes,
        "hole_bytes": layout.hole_bytes,
        "extents": layout.extents,
        "records": layout.records,
        "restore_read_bytes": layout.payload_bytes,
        "restore_expand_bytes": layout.record_bytes,
        "packs": layout.packs,
        "depth": layout.depth,
        "read_amplification": round(layout.read_amplification, 3),
        "stored_content": None if stored_content is None else to_builtins(stored_content),
    }


def describe_difference(found: Difference) -> dict[str, object]:
    """Return where two snapshots differ."""
    return {
        "a": found.older.id,
        "b": found.newer.id,
        "differing_bytes": found.differing_bytes,
        "extents": describe_extents(found.extents),
    }


def describe_totals(totals: RepositoryTotals, repository_id: str) -> dict[str, object]:
    """Return what a repository holds."""
    return {
        "repository": repository_id,
        "snapshots": totals.snapshots,
        "damaged_snapshots": [each.ref.id for each in totals.damaged],
        "apparent_bytes": totals.apparent_bytes,
        "allocated_bytes": totals.allocated_bytes,
        "stored_bytes": totals.total_bytes,
        "records": totals.record_count,
        "record_bytes": totals.record_bytes,
        "objects": {
            kind: {"count": count, "bytes": totals.stored_bytes[kind]} for kind, count in totals.objects.items()
        },
    }
