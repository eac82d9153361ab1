# SPDX-License-Identifier: Apache-2.0
"""Groups: what a backup stored of them, a snapshot of one, and what a restore wrote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from deltaimg.describe.backup import describe_backup
from deltaimg.describe.parts import describe_time
from deltaimg.describe.restore import describe_restored
from deltaimg.describe.snapshots import format_freezing
from deltaimg.domains.interface import LeftOut
from deltaimg.format.manifest import Manifest
from deltaimg.repo.groups import GroupSnapshot

if TYPE_CHECKING:
    from deltaimg.api.restore_many import RestoredGroup


def describe_group_backup(manifests: Sequence[Manifest], left_out: Sequence[LeftOut]) -> dict[str, Any]:
    """Return the object that a backup of a group or guest ends with."""
    group = manifests[0].group
    assert group is not None
    return {
        "group": group.name,
        **describe_time("time", manifests[0].taken_at),
        "frozen_s": _find_frozen_s(manifests),
        "spread_s": group.spread_s,
        "left_out": describe_left_out(left_out),
        "members": [describe_backup(each) for each in manifests],
    }


def describe_left_out(left_out: Sequence[LeftOut]) -> list[dict[str, str]]:
    """Return the disks of a guest that are not backed up, and why."""
    return [{"disk": each.name, "reason": each.reason} for each in left_out]


def describe_group(found: GroupSnapshot, config: bytes | None) -> dict[str, Any]:
    """Return a snapshot of a group as a JSON object. `missing` lists the images of which there is none."""
    manifests = [each.manifest for each in found.snapshots]
    return {
        "group": found.group.name,
        **describe_time("time", manifests[0].taken_at),
        "frozen_s": _find_frozen_s(manifests),
        "spread_s": found.group.spread_s,
        "missing": list(found.missing),
        "config": None if config is None else config.decode(errors="replace"),
        "members": [
            {"snapshot": each.id, "image": each.image, "source": each.source, "apparent_bytes": each.size_bytes}
            for each in manifests
        ],
    }


def describe_restored_group(restored: RestoredGroup) -> dict[str, Any]:
    """Return the object that a restore of a group ends with."""
    return {
        "group": restored.snapshot.group.name,
        "config": restored.config_path,
        "members": [describe_restored(each, target) for target, each in restored.results.items()],
    }


def format_group_freezing(manifests: Sequence[Manifest]) -> str:
    """Return how the images of a group were frozen, for people: once for all of them where it is the same."""
    group = manifests[0].group
    found = [each for each in manifests if each.freeze is not None]
    if group is None or not found:
        return ""
    same = all(each.freeze and each.freeze.method == found[0].freeze.method for each in found if found[0].freeze)
    how = "; ".join(
        f"{'' if same else f'{each.image} '}{format_freezing(each.freeze)}"
        for each in (found[:1] if same else found)
        if each.freeze is not None
    )
    if not group.spread_s:
        return how
    return (
        f"{how}; one after another within {group.spread_s * 1000:.0f} ms: what was written meanwhile may be in the later ones "
        "alone, unless --pre-freeze stops the writers"
    )


def _find_frozen_s(manifests: Sequence[Manifest]) -> float | None:
    """Return for how long writers were stopped, or the first member took to be frozen; None where nothing was frozen."""
    times = [each.freeze.frozen_s for each in manifests if each.freeze is not None]
    return max(times, default=None)
