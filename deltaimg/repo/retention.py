# SPDX-License-Identifier: Apache-2.0
"""Which snapshots of an image a policy keeps, and by which of its rules. Pure: snapshots and a clock in, a plan out.

Each rule is applied to all snapshots by itself, newest first; what no rule keeps is forgotten. A rule of a period (hourly to
yearly) keeps the newest snapshot of each of the newest periods that have any; while it has periods left, it keeps the
oldest snapshot as well, so that history grows as long as the policy allows.

Always  the newest snapshot stays under any policy, and so does one that is pinned, damaged, or from the future.
Always  order is that of the times in the manifests, which a clock that goes back cannot disturb.
Always  a snapshot belongs to the moment at which its backup ended, by the clock of its host, or to the earlier time that it was
        given. Where such moments contradict the order, a clock was ahead for some or behind for others, and which
        is unknown: both are tried, and what either keeps is kept. So a wrong date takes no good snapshot's place.
        The same with and without snapshots whose dates are doubtful for other reasons.
Always  as long as moments agree with the order, what the policy keeps does not depend on which others were deleted already:
        an interrupted run can be run again.
Source  the rules are those of restic's `forget`, so that a policy means the same in both.
"""

from __future__ import annotations

import calendar
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta, tzinfo

from msgspec import Struct
from msgspec.structs import replace

from deltaimg.errors import LastSnapshot, SnapshotPinned
from deltaimg.format.manifest import Manifest
from deltaimg.options.keep import Policy, Span
from deltaimg.repo.repository import SnapshotRef
from deltaimg.repo.snapshots import AnySnapshot, DamagedSnapshot, Snapshot

_EARLIEST = datetime(1970, 1, 2, tzinfo=UTC)
"""No backup is older; earlier times would be outside the calendar in some time zones."""


class Verdict(Struct, frozen=True):
    """The decision for one snapshot."""

    ref: SnapshotRef
    rules: tuple[str, ...]
    """Those that keep it; none if it is to be forgotten."""

    @property
    def is_kept(self) -> bool:
        """Whether any rule keeps it."""
        return bool(self.rules)


class ForgetPlan(Struct, frozen=True):
    """The decisions for the snapshots of one image, oldest first."""

    image: str
    verdicts: tuple[Verdict, ...]
    doubtful: tuple[SnapshotRef, ...] = ()
    """Snapshots whose dates may be wrong, and which displace no others."""

    @property
    def forgotten(self) -> tuple[SnapshotRef, ...]:
        """The snapshots to forget, oldest first."""
        return tuple(each.ref for each in self.verdicts if not each.is_kept)

    @property
    def kept(self) -> tuple[SnapshotRef, ...]:
        """The snapshots that are kept, oldest first."""
        return tuple(each.ref for each in self.verdicts if each.is_kept)


class _Dated(Struct, frozen=True):
    """A snapshot and the moment that it belongs to; `rules` gathers those that keep it."""

    snapshot: Snapshot
    moment: datetime
    rules: dict[str, None]


def plan_policy(
    snapshots: Sequence[AnySnapshot],
    policy: Policy,
    *,
    now: datetime,
    zone: tzinfo | None = None,
    doubtful: Collection[str] = (),
) -> ForgetPlan:
    """Apply a policy to all snapshots of one image.

    Args:
        zone: whose days and hours count; that of this host if none is given.
        doubtful: ids of snapshots whose dates may be wrong: what the policy would keep without them is kept, too.
    """
    ordered = sorted(snapshots, key=lambda each: each.ref)
    rules: list[dict[str, None]] = [_find_own_rules(each, policy) for each in ordered]
    dated = [
        _Dated(each, max(find_moment(each.manifest), _EARLIEST), found)
        for each, found in zip(ordered, rules, strict=True)
        if isinstance(each, Snapshot)
    ]
    _apply(policy, dated, now, zone)
    certain = [each for each in dated if each.snapshot.ref.id not in doubtful]
    if len(certain) < len(dated):
        _apply(policy, certain, now, zone)
    refs = tuple(each.snapshot.ref for each in dated if each.snapshot.ref.id in doubtful)
    return replace(_finish(ordered, rules), doubtful=refs)


def _apply(policy: Policy, dated: Sequence[_Dated], now: datetime, zone: tzinfo | None) -> None:
    """Apply every rule of a policy to snapshots, oldest first."""
    if dated:
        dated[-1].rules["newest"] = None
    for each in dated:
        if each.moment > now:
            each.rules["in the future"] = None
    past = [each for each in dated if each.moment <= now]
    for each in past[::-1][: policy.last or 0]:
        each.rules["last"] = None
    if policy.within and past:
        _apply_span(policy.within, past, zone)
    for reading in (_drop_ahead(past), _drop_behind(past)):
        _apply_periods(policy, reading, zone)


def plan_named(snapshots: Sequence[AnySnapshot], ids: frozenset[str], *, is_forced: bool = False) -> ForgetPlan:
    """Forget the snapshots of one image that have these ids, damaged ones as well.

    Raises:
        SnapshotPinned: one of them is pinned, or may be. LastSnapshot: they are all that the image has, and it is not
            `is_forced`.
    """
    ordered = sorted(snapshots, key=lambda each: each.ref)
    for each in ordered:
        if each.ref.id in ids and each.pin_reason is not None:
            raise SnapshotPinned(each.ref.label, each.pin_reason)
        if each.ref.id in ids and each.said.error is not None:
            raise SnapshotPinned(each.ref.label, f"perhaps: {each.said.error}")
    plan = _finish(ordered, [{} if each.ref.id in ids else {"not named": None} for each in ordered])
    if ordered and not plan.kept and not is_forced:
        raise LastSnapshot(plan.image, len(ordered))
    return plan


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
        # A time that comes twice is the first, one that the clock left out is before the gap: nothing is kept too short.
        placed = moment if earlier == local else min(_place(earlier, zone, fold) for fold in (0, 1))
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


def _place(local: datetime, zone: tzinfo | None, fold: int) -> datetime:
    """Return the moment of a local time; where it comes twice or not at all, `fold` says by which offset."""
    return local.replace(tzinfo=zone, fold=fold).astimezone(UTC)


def find_moment(manifest: Manifest) -> datetime:
    """Return when a backup ended by its clock, or the earlier time that the snapshot was given."""
    return min(manifest.ended_at, manifest.taken_at)


def _find_own_rules(snapshot: AnySnapshot, policy: Policy) -> dict[str, None]:
    """Return the rules that keep a snapshot for what it is, whatever others there are."""
    rules = [] if snapshot.pin_reason is None else ["pinned"]
    if snapshot.said.error is not None:
        rules.append("annotation damaged")
    if isinstance(snapshot, DamagedSnapshot):
        rules.append("damaged")
    else:
        tags = frozenset(snapshot.tags)
        rules += [f"tag {','.join(sorted(wanted))}" for wanted in policy.tags if wanted <= tags]
    return dict.fromkeys(rules)


def _drop_ahead(dated: Sequence[_Dated]) -> list[_Dated]:
    """Leave out what is dated later than a snapshot after it: its clock may have been ahead."""
    kept: list[_Dated] = []
    for each in reversed(dated):
        if not kept or each.moment <= kept[-1].moment:
            kept.append(each)
    return kept[::-1]


def _drop_behind(dated: Sequence[_Dated]) -> list[_Dated]:
    """Leave out what is dated earlier than a snapshot before it: its clock may have been behind."""
    kept: list[_Dated] = []
    for each in dated:
        if not kept or each.moment >= kept[-1].moment:
            kept.append(each)
    return kept


def _apply_span(span: Span, past: Sequence[_Dated], zone: tzinfo | None) -> None:
    """Keep what is no older than `span`, counted back from the newest; one after such a snapshot is no older than that."""
    oldest_allowed = go_back(past[-1].moment, span, zone)
    reached = _EARLIEST
    for each in past:
        reached = max(reached, each.moment)
        if reached >= oldest_allowed:
            each.rules[f"within {span}"] = None


def _apply_periods(policy: Policy, dated: Sequence[_Dated], zone: tzinfo | None) -> None:
    """Apply the rules of periods to snapshots whose moments agree with their order, oldest first."""
    for name, period_of in _PERIODS.items():
        periods = [(each, period_of(each.moment.astimezone(zone))) for each in reversed(dated)]
        _apply_period(name, getattr(policy, name) or 0, periods)


def _apply_period(name: str, count: int, periods: Sequence[tuple[_Dated, object]]) -> None:
    """Keep the newest snapshot of each of `count` periods, and the oldest of all while there are fewer.

    Args:
        periods: each snapshot with its period, newest first.
    """
    seen: set[object] = set()
    for number, (each, period) in enumerate(periods):
        if len(seen) >= count:
            return
        if period not in seen:
            each.rules[name] = None
            seen.add(period)
        elif number == len(periods) - 1:
            each.rules[f"oldest {name}"] = None


def _finish(ordered: Sequence[AnySnapshot], rules: Sequence[Iterable[str]]) -> ForgetPlan:
    verdicts = tuple(Verdict(each.ref, tuple(found)) for each, found in zip(ordered, rules, strict=True))
    return ForgetPlan(ordered[0].ref.image if ordered else "", verdicts)
