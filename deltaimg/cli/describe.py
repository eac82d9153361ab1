# SPDX-License-Identifier: Apache-2.0
"""Manifests, extents and locks as programs see them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from deltaimg.cli.terminal import format_moment
from deltaimg.format.manifest import Manifest, is_time, parse_time
from deltaimg.model import DamagedExtent, Extent
from deltaimg.repo.lock_holder import FoundLock
from deltaimg.repo.repository import SnapshotRef
from deltaimg.repo.snapshots import DamagedSnapshot, Snapshot

if TYPE_CHECKING:
    from deltaimg.engine.inspect.listing import ListedSnapshot

if TYPE_CHECKING:
    from deltaimg.engine.backup.forecast import BackupForecast


def describe_time(name: str, moment: datetime | None) -> dict[str, object]:
    """Return a moment as two fields: to the second, as RFC 3339 and `jq` have it, and `<name>_exact`, to the microsecond."""
    if moment is None:
        return {name: None, f"{name}_exact": None}
    exact = moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
    return {name: f"{exact.partition('.')[0]}Z", f"{name}_exact": f"{exact}Z"}


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
    described["kind"] = "full" if manifest.base is None else "incremental"
    identity: dict[str, Any] = {"snapshot": manifest.id}
    return identity | described | statistics


def describe_listed(listed: ListedSnapshot) -> dict[str, Any]:
    """Return a snapshot of a list as a JSON object. `damage` is null, or why it cannot be restored."""
    snapshot, damage = listed.snapshot, {"damage": listed.damage}
    if isinstance(snapshot, DamagedSnapshot):
        ref = snapshot.ref
        return {"snapshot": ref.id, "image": ref.image} | describe_time("time", ref.taken_at) | damage
    depth = {} if listed.depth is None else {"depth": listed.depth}
    return describe_snapshot(snapshot, is_base_forgotten=listed.is_base_forgotten) | damage | depth


def describe_said(snapshot: Snapshot) -> dict[str, Any]:
    """Return what is said about a snapshot as a JSON object."""
    said = {"pinned": snapshot.pin_reason, "tags": list(snapshot.tags), "comment": snapshot.comment}
    return {"snapshot": snapshot.manifest.id, "image": snapshot.manifest.image} | said


def is_forgotten(base: str | None, refs: Iterable[SnapshotRef]) -> bool:
    """Return whether a base is none of the snapshots of its image that are there."""
    return base is not None and base not in {ref.id for ref in refs}


def format_base(manifest: Manifest, *, is_forgotten: bool) -> str:
    """Return what a snapshot was compared with, for people."""
    if manifest.base is None or manifest.base_taken_at is None:
        return "none: a full snapshot"
    of = f"{manifest.base} of {format_moment(manifest.base_taken_at, to_minutes=True)}"
    return f"{of}, forgotten" if is_forgotten else of


def describe_backup(manifest: Manifest) -> dict[str, Any]:
    """Return the object that `backup --json` ends with."""
    statistics: dict[str, Any] = msgspec.to_builtins(manifest.statistics)
    described = {"snapshot": manifest.id, "image": manifest.image, "base": manifest.base} | statistics
    return described | {"unreadable": describe_extents(manifest.unreadable)}


def describe_forecast(planned: BackupForecast, image: str) -> dict[str, Any]:
    """Return the object that `backup --dry-run --json` ends with: as of a backup, but for what is only known afterwards."""
    statistics: dict[str, Any] = msgspec.to_builtins(planned.statistics)
    del statistics["stored_bytes"]
    base = None if planned.base is None else planned.base.id
    described = {"dry_run": True, "image": image, "base": base} | statistics
    return described | {"unreadable": describe_extents(planned.unreadable)}


def describe_extents(extents: Iterable[Extent]) -> list[dict[str, int]]:
    """Return extents as JSON objects."""
    return [{"start": each.start, "end": each.end} for each in extents]


def describe_damage(extents: Iterable[DamagedExtent]) -> list[dict[str, int | str]]:
    """Return damaged extents as JSON objects, each with the reason."""
    return [{"start": each.start, "end": each.end, "reason": each.reason} for each in extents]


def name_lock_state(found: FoundLock) -> str:
    """Return what is known about the holder of a lock, in a word or two."""
    if found.lock is None:
        return "damaged" if found.is_damaged else "unreadable"
    if found.is_dead:
        return "dead"
    return "at work" if found.is_local else "elsewhere"


def describe_lock(found: FoundLock) -> dict[str, object]:
    """Return a lock for programs."""
    lock = found.lock
    return {
        "name": found.label,
        "owner": lock.owner if lock else None,
        "host": lock.host if lock else None,
        "pid": lock.pid if lock else None,
        **describe_time("since", parse_time(lock.created) if lock and is_time(lock.created) else None),
        "purpose": lock.purpose if lock else None,
        "state": name_lock_state(found),
        "error": str(found.error) if found.error else None,
    }
