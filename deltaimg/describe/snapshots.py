# SPDX-License-Identifier: Apache-2.0
"""Snapshots and their annotations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from deltaimg.describe.parts import describe_extents, describe_time
from deltaimg.describe.text import format_bytes, format_count, format_moment
from deltaimg.engine.backup.audit import CONFIDENCE, find_detectable_share
from deltaimg.format.manifest import FreeSpaceSkipped, Freezing, Manifest, Tracking, parse_time
from deltaimg.repo.repository import SnapshotRef
from deltaimg.repo.snapshots import DamagedSnapshot, Snapshot

if TYPE_CHECKING:
    from deltaimg.engine.inspect.listing import ListedSnapshot

_CLOCK_STEP = timedelta(minutes=1)
"""A snapshot may be dated so much later than its host's clock said, as clocks are put right, before that is pointed out."""


def describe_snapshot(snapshot: Snapshot, *, is_base_forgotten: bool) -> dict[str, Any]:
    """Return a snapshot as a JSON object; sizes in bytes, times as `describe_time` has them.

    `pinned` is null, or why it is pinned, which may be an empty text.
    """
    manifest = snapshot.manifest
    described: dict[str, Any] = msgspec.to_builtins(manifest)
    statistics: dict[str, Any] = described.pop("statistics")
    for name in ("time", "started", "ended", "base_time"):
        text = getattr(manifest, name)
        described |= describe_time(name, None if text is None else parse_time(text))
    described["base_forgotten"] = is_base_forgotten
    described |= describe_said(snapshot)
    described["unreadable"] = describe_extents(manifest.unreadable)
    described["tracking"] = describe_tracking(manifest.tracking)
    described["kind"] = "full" if manifest.base is None else "incremental"
    identity: dict[str, Any] = {"snapshot": manifest.id}
    return identity | described | statistics


def describe_tracking(tracking: Tracking | None) -> dict[str, Any] | None:
    """Return what change tracking spared a backup as a JSON object; None where none was asked for."""
    if tracking is None:
        return None
    described: dict[str, Any] = msgspec.to_builtins(tracking)
    last_scan = None if tracking.last_scan is None else parse_time(tracking.last_scan)
    described |= describe_time("last_scan", last_scan)
    return described | {"detectable_share": round(find_detectable_share(tracking.audited_blocks), 6)}


def describe_listed(listed: ListedSnapshot) -> dict[str, Any]:
    """Return a snapshot of a list as a JSON object. `damage` is null, or why it cannot be restored."""
    snapshot, damage = listed.snapshot, {"damage": listed.damage}
    if isinstance(snapshot, DamagedSnapshot):
        ref = snapshot.ref
        return {"snapshot": ref.id, "image": ref.image} | describe_time("time", ref.taken_at) | damage
    depth: dict[str, Any] = {} if listed.depth is None else {"depth": listed.depth}
    if snapshot.manifest.group is not None:
        depth |= {"group_missing": list(listed.missing)}
    return describe_snapshot(snapshot, is_base_forgotten=listed.is_base_forgotten) | damage | depth


def describe_said(snapshot: Snapshot) -> dict[str, Any]:
    """Return a snapshot's annotation as a JSON object."""
    said = {"pinned": snapshot.pin_reason, "tags": list(snapshot.tags), "comment": snapshot.comment}
    return {"snapshot": snapshot.manifest.id, "image": snapshot.manifest.image} | said


def describe_all_said(snapshots: Sequence[Snapshot]) -> object:
    """Return the annotation of a snapshot as a JSON object, those of several members of a group as a list of such."""
    described = [describe_said(each) for each in snapshots]
    return described[0] if len(described) == 1 else described


def is_forgotten(base: str | None, refs: Iterable[SnapshotRef]) -> bool:
    """Return whether a base is none of the snapshots of its image that are there."""
    return base is not None and base not in {ref.id for ref in refs}


def format_base(manifest: Manifest, *, is_forgotten: bool) -> str:
    """Return what a snapshot was compared with, for people."""
    if manifest.base is None or manifest.base_taken_at is None:
        return "none: a full snapshot"
    of = f"{manifest.base} of {format_moment(manifest.base_taken_at, to_minutes=True)}"
    return f"{of}, forgotten" if is_forgotten else of


def format_clock(manifest: Manifest) -> str:
    """Return when a snapshot was taken by its host's clock, where its date only follows that of the one before; else ""."""
    if manifest.taken_at - manifest.ended_at < _CLOCK_STEP:
        return ""
    return f"{format_moment(manifest.ended_at, to_minutes=True)} by the clock"


def format_freezing(freeze: Freezing) -> str:
    """Return how an image was frozen, and why not in a better way, for people."""
    if freeze.method == "none":
        return f"not frozen: {freeze.reason}"
    used = f", {format_bytes(freeze.used_bytes)} of its room used" if freeze.used_bytes else ""
    why = f"; {freeze.reason}" if freeze.reason else ""
    return f"frozen by {freeze.method} for {freeze.frozen_s * 1000:.0f} ms{used}{why}"


def format_free_space(skipped: FreeSpaceSkipped) -> str:
    """Return what was left out of a snapshot as free, and why not more, for people."""
    return f"{format_bytes(skipped.skipped_bytes)} left out as free{f' ({skipped.reason})' if skipped.reason else ''}"


def format_tracking(tracking: Tracking) -> str:
    """Return what change tracking spared a backup, and how far that was audited, for people."""
    if tracking.method == "scan":
        return f"everything was read: {tracking.reason}"
    unread = f"{format_bytes(tracking.unchanged_bytes)} not read ({tracking.method})"
    if not tracking.audited_blocks:
        return f"{unread}, and none of it compared" if tracking.unchanged_bytes else unread
    share, audited = find_detectable_share(tracking.audited_blocks), format_count(tracking.audited_blocks, "block")
    return f"{unread}; {audited} of it compared, which finds {100 * share:.2g} % of wrong ones with {100 * CONFIDENCE:.0f} %"
