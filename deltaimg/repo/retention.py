# SPDX-License-Identifier: Apache-2.0
"""Which snapshots of an image a policy keeps, and by which of its rules. Pure: manifests and a clock in, a plan out.

Each rule looks at all snapshots by itself, newest first, and what no rule keeps is forgotten. A rule of a period (hourly to
yearly) keeps the newest snapshot of each of the newest periods that have any; while it has periods left, it keeps the
oldest snapshot as well, so that history grows as long as the policy allows.

Always  order is that of the times in the manifests, which a clock that goes back cannot disturb.
Always  a snapshot belongs to the moment at which its backup ended by the clock of its own run. Where a clock had gone back,
        the time in the manifest is later than that, only to keep the order.
Always  a snapshot from the future is kept, and takes no other's place, until the clock has caught up.
Always  what the policy keeps does not depend on which of the others are gone already: an interrupted run can be run again.
Source  the rules are those of restic's `forget`, so that a policy means the same in both.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from deltaimg.errors import LastSnapshot, SnapshotPinned, UsageError
from deltaimg.format.manifest import Manifest

UNLIMITED = 2**31
"""As many periods as there are."""
_EARLIEST = datetime(1970, 1, 2, tzinfo=UTC)
"""Times before it are no backup's, and would leave the calendar in some time zones."""
_SPAN = re.compile(r"(?:\d{1,6}[ymwdh])+", re.ASCII)
_SPAN_PART = re.compile(r"(\d+)([ymwdh])", re.ASCII)


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time as a calendar has it: a month back from 31 March is the last day of February."""

    years: int = 0
    months: int = 0
    weeks: int = 0
    days: int = 0
    hours: int = 0

    def __str__(self) -> str:
        parts = ((self.years, "y"), (self.months, "m"), (self.weeks, "w"), (self.days, "d"), (self.hours, "h"))
        return "".join(f"{count}{unit}" for count, unit in parts if count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How many periods of each kind keep a snapshot, and what is kept besides."""

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within: Span | None = None
    """All that are no older than this, counted back from the newest snapshot."""
    tags: tuple[frozenset[str], ...] = ()
    """All that have every tag of one of these sets."""

    @property
    def is_empty(self) -> bool:
        """Whether there is no rule that could keep anything."""
        return not any((*(count for _, count in self.periods), self.within, self.tags))

    @property
    def periods(self) -> tuple[tuple[str, int], ...]:
        """The rules that count, by name."""
        return tuple((name, getattr(self, name)) for name in ("last", *_PERIODS))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of one snapshot."""

    manifest: Manifest
    rules: tuple[str, ...]
    """Those that keep it; none if it is to be forgotten."""

    @property
    def is_kept(self) -> bool:
        return bool(self.rules)


@dataclass(frozen=True, slots=True)
class ForgetPlan:
    """What becomes of the snapshots of one image, oldest first."""

    image: str
    verdicts: tuple[Verdict, ...]

    @property
    def forgotten(self) -> tuple[Manifest, ...]:
        return tuple(each.manifest for each in self.verdicts if not each.is_kept)

    @property
    def kept(self) -> tuple[Manifest, ...]:
        return tuple(each.manifest for each in self.verdicts if each.is_kept)


def plan_policy(
    manifests: Sequence[Manifest], policy: Policy, *, now: datetime, zone: tzinfo | None = None, is_forced: bool = False
) -> ForgetPlan:
    """Apply a policy to all snapshots of one image.

    Args:
        zone: whose days and hours count; that of this host if none is given.
        is_forced: the policy may leave nothing.

    Raises:
        LastSnapshot: it leaves nothing.
    """
    ordered = sorted(manifests, key=lambda each: (each.time, each.id))
    moments = [find_moment(each) for each in ordered]
    rules: list[list[str]] = [_find_own_rules(each, policy) for each in ordered]
    dated = [place for place in reversed(range(len(ordered))) if moments[place] <= now]
    for place in range(len(ordered)):
        if moments[place] > now:
            rules[place].append("in the future")
    if policy.within and dated:
        newest = max(moments[place] for place in dated)
        oldest_allowed = go_back(newest, policy.within, zone)
        for place in dated:
            if moments[place] >= oldest_allowed:
                rules[place].append(f"within {policy.within}")
    local = {place: moments[place].astimezone(zone) for place in dated}
    for name, count in policy.periods:
        period_of = _PERIODS.get(name)
        periods = [(place, place if period_of is None else period_of(local[place])) for place in dated]
        _apply_period(name, count, periods, rules)
    return _finish(ordered, rules, is_forced=is_forced)


def plan_named(manifests: Sequence[Manifest], ids: frozenset[str], *, is_forced: bool = False) -> ForgetPlan:
    """Forget the snapshots of one image that have these ids.

    Raises:
        SnapshotPinned: one of them is pinned. LastSnapshot: they are all that the image has, and it is not `is_forced`.
    """
    ordered = sorted(manifests, key=lambda each: (each.time, each.id))
    for each in ordered:
        if each.id in ids and each.pin_reason is not None:
            raise SnapshotPinned(each.label, each.pin_reason)
    return _finish(ordered, [[] if each.id in ids else ["not named"] for each in ordered], is_forced=is_forced)


def find_moment(manifest: Manifest) -> datetime:
    """Return when a backup ended by the clock of its own run, whatever its manifest had to say to keep the order."""
    moment = manifest.taken_at
    if started := manifest.started_at:
        duration_s = max(0.0, manifest.statistics.duration_s)
        if (moment - started).total_seconds() > duration_s:
            moment = started + timedelta(seconds=duration_s)
    return max(moment, _EARLIEST)


def parse_span(text: str) -> Span:
    """Return the span that `30d`, `12h`, `2w`, `6m` or `1y6m` means; raises UsageError."""
    parts = _SPAN_PART.findall(text)
    counts = {unit: int(count) for count, unit in parts}
    if not _SPAN.fullmatch(text) or len(counts) != len(parts) or not any(counts.values()):
        raise UsageError(f"'{text[:60]}' is no span of time", hint="write 30d, 12h, 2w, 6m, 1y or a row of them: 1y6m")
    return Span(*(counts.get(unit, 0) for unit in "ymwdh"))


def go_back(moment: datetime, span: Span, zone: tzinfo | None) -> datetime:
    """Return the moment a span earlier: years to days by the calendar of `zone`, then hours by the clock."""
    local = moment.astimezone(zone).replace(tzinfo=None)
    month_count = local.year * 12 + local.month - 1 - 12 * span.years - span.months
    year, month = divmod(month_count, 12)
    if year < _EARLIEST.year:
        return _EARLIEST
    day = min(local.day, calendar.monthrange(year, month + 1)[1])
    try:
        earlier = local.replace(year=year, month=month + 1, day=day) - timedelta(weeks=span.weeks, days=span.days)
        placed = earlier if zone is None else earlier.replace(tzinfo=zone)
        return max(_EARLIEST, placed.astimezone(UTC) - timedelta(hours=span.hours))
    except (OverflowError, ValueError):
        return _EARLIEST


_PERIODS: dict[str, Callable[[datetime], object]] = {
    # The hour that comes twice when the clocks go back is two hours.
    "hourly": lambda local: (local.date(), local.hour, local.utcoffset()),
    "daily": lambda local: local.date(),
    "weekly": lambda local: local.isocalendar()[:2],
    "monthly": lambda local: (local.year, local.month),
    "yearly": lambda local: local.year,
}


def _find_own_rules(manifest: Manifest, policy: Policy) -> list[str]:
    """Return the rules that keep a snapshot for what it is, whatever others there are."""
    rules = [] if manifest.pin_reason is None else ["pinned"]
    tags = frozenset(manifest.tags)
    return rules + [f"tag {','.join(sorted(wanted))}" for wanted in policy.tags if wanted <= tags]


def _apply_period(name: str, count: int, periods: list[tuple[int, object]], rules: list[list[str]]) -> None:
    """Keep the newest snapshot of each of `count` periods.

    Args:
        periods: place and period of each snapshot, newest first.
    """
    seen: set[object] = set()
    for number, (place, period) in enumerate(periods):
        if len(seen) >= count:
            return
        if period not in seen:
            rules[place].append(name)
            seen.add(period)
        elif number == len(periods) - 1:
            rules[place].append(f"oldest {name}")


def _finish(ordered: Sequence[Manifest], rules: Sequence[Sequence[str]], *, is_forced: bool) -> ForgetPlan:
    if not ordered:
        return ForgetPlan("", ())
    plan = ForgetPlan(
        ordered[0].image,
        tuple(Verdict(manifest, tuple(reasons)) for manifest, reasons in zip(ordered, rules, strict=True)),
    )
    if not plan.kept and not is_forced:
        raise LastSnapshot(plan.image, len(ordered))
    return plan
