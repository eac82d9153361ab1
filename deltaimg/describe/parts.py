# SPDX-License-Identifier: Apache-2.0
"""What many results have: times, extents, damage."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from deltaimg.model import DamagedExtent, Extent


def describe_time(name: str, moment: datetime | None) -> dict[str, object]:
    """Return a moment as two fields: to the second, as RFC 3339 and `jq` have it, and `<name>_exact`, to the microsecond."""
    if moment is None:
        return {name: None, f"{name}_exact": None}
    exact = moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
    return {name: f"{exact.partition('.')[0]}Z", f"{name}_exact": f"{exact}Z"}


def describe_extents(extents: Iterable[Extent]) -> list[dict[str, int]]:
    """Return extents as JSON objects."""
    return [{"start": each.start, "end": each.end} for each in extents]


def describe_damage(extents: Iterable[DamagedExtent]) -> list[dict[str, int | str]]:
    """Return damaged extents as JSON objects, each with the reason."""
    return [{"start": each.start, "end": each.end, "reason": each.reason} for each in extents]
