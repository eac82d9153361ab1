# SPDX-License-Identifier: Apache-2.0
"""The policy of `forget`: what is kept."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from msgspec import Struct

from deltaimg.errors import UsageError
from deltaimg.options.definition import option
from deltaimg.options.values import ValueType

UNLIMITED = 2**31
"""As many periods as there are."""
_SPAN = re.compile(r"(?:\d{1,6}[ymwdh])+", re.ASCII)
_SPAN_PART = re.compile(r"(\d+)([ymwdh])", re.ASCII)


class Span(Struct, frozen=True):
    """A stretch of time as a calendar has it: a month back from 31 March is the last day of February."""

    years: int = 0
    months: int = 0
    weeks: int = 0
    days: int = 0
    hours: int = 0

    def __str__(self) -> str:
        parts = ((self.years, "y"), (self.months, "m"), (self.weeks, "w"), (self.days, "d"), (self.hours, "h"))
        return "".join(f"{count}{unit}" for count, unit in parts if count)


def parse_span(text: str) -> Span:
    """Return the span that `30d`, `12h`, `2w`, `6m` or `1y6m` means; raises UsageError."""
    parts = _SPAN_PART.findall(text)
    counts = {unit: int(count) for count, unit in parts}
    if not _SPAN.fullmatch(text) or len(counts) != len(parts) or not any(counts.values()):
        raise UsageError(f"'{text[:60]}' is no span of time", hint="write 30d, 12h, 2w, 6m, 1y or a row of them: 1y6m")
    return Span(*(counts.get(unit, 0) for unit in "ymwdh"))


def _parse_count(text: str) -> int:
    if text == "unlimited":
        return UNLIMITED
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise UsageError(f"'{text[:60]}' is not a valid number", hint="write 7, or 'unlimited'")
    return int(text)


def _parse_tags(text: str) -> frozenset[str]:
    tags = frozenset(part.strip() for part in text.split(","))
    if "" in tags:
        raise UsageError("--keep-tag has an empty tag", hint="write --keep-tag weekly, or --keep-tag weekly,offsite")
    return tags


SPAN = ValueType("SPAN", parse_span)
_COUNT = ValueType("N", _parse_count)
_TAGS = ValueType("TAG", _parse_tags, ",".join)


def _keep(what: str, name: str) -> Any:
    return option(None, _COUNT, f"Keep {what}; 'unlimited' for all.", name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How many periods of each kind keep a snapshot, and what is kept besides the newest. None is no rule, as 0 is."""

    last: int | None = _keep("the newest N snapshots", "--keep-last")
    hourly: int | None = _keep("the newest of each of the last N hours", "--keep-hourly")
    daily: int | None = _keep("the newest of each of the last N days", "--keep-daily")
    weekly: int | None = _keep("the newest of each of the last N weeks", "--keep-weekly")
    monthly: int | None = _keep("the newest of each of the last N months", "--keep-monthly")
    yearly: int | None = _keep("the newest of each of the last N years", "--keep-yearly")
    within: Span | None = option(
        None,
        SPAN,
        "Keep all that are at most this much older than the newest: 12h, 30d, 2w, 6m, 1y, 1y6m.",
        "--keep-within",
    )
    tags: tuple[frozenset[str], ...] = option(
        (), _TAGS, "Keep all with this tag, or with all of 'TAG,TAG'; repeatable.", "--keep-tag", is_repeatable=True
    )

    @property
    def is_empty(self) -> bool:
        """Whether there is no rule that could keep anything."""
        counts = (self.last, self.hourly, self.daily, self.weekly, self.monthly, self.yearly)
        return not any((*counts, self.within, self.tags))
