# SPDX-License-Identifier: Apache-2.0
"""What a host, a repository and images allow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from deltaimg.describe.parts import describe_time
from deltaimg.engine.doctor.finding import Finding
from deltaimg.engine.doctor.image import ImageOutlook, LastBackup, Way


def describe_findings(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Return what was looked at as JSON objects."""
    return [msgspec.to_builtins(each) for each in findings]


def describe_outlook(outlook: ImageOutlook) -> dict[str, Any]:
    """Return what a backup of an image could do as a JSON object; an `obstacle` is null where a way works."""
    return {
        "path": outlook.path,
        "image": outlook.image or None,
        "size_bytes": outlook.size_bytes,
        "writer": outlook.writer,
        "freeze": outlook.best_freezing,
        "track": outlook.best_tracking,
        "freeze_ways": [_describe_way(each) for each in outlook.freezing],
        "track_ways": [_describe_way(each) for each in outlook.tracking],
        "last": None if outlook.last is None else _describe_last(outlook.last),
    }


def _describe_way(way: Way) -> dict[str, Any]:
    return {"name": way.name, "obstacle": way.obstacle or None}


def _describe_last(last: LastBackup) -> dict[str, Any]:
    return {
        "snapshot": last.manifest.id,
        **describe_time("time", last.manifest.taken_at),
        "why_full": last.why_full or None,
        "why_scanned": last.why_scanned or None,
        "stored_bytes": last.manifest.statistics.stored_bytes,
    }
