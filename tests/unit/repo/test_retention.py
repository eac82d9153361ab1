# SPDX-License-Identifier: Apache-2.0
"""What a policy keeps: worked examples, then what holds for any history, any policy and any clock."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import pairwise
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltaimg.errors import LastSnapshot, SnapshotPinned, UsageError
from deltaimg.format.manifest import Manifest, format_time
from deltaimg.repo.retention import (
    UNLIMITED,
    ForgetPlan,
    Policy,
    Span,
    find_moment,
    go_back,
    parse_span,
    plan_named,
    plan_policy,
)
from tests.golden.samples import FULL

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def make_history(moments: Sequence[datetime], tags: Sequence[tuple[str, ...]] = ()) -> list[Manifest]:
    """Return a manifest for each moment, in a row, as backups at these moments make them: time never goes back."""
    manifests: list[Manifest] = []
    for number, moment in enumerate(moments):
        time = moment
        if manifests:
            time = max(time, manifests[-1].taken_at + timedelta(microseconds=1))
        manifests.append(
            msgspec.structs.replace(
                FULL,
                id=f"{number:016x}",
                time=format_time(time),
                started=format_time(moment - timedelta(milliseconds=125)),
                tags=tags[number] if tags else (),
            )
        )
    return manifests


def nights(count: int, last: datetime = NOW) -> list[Manifest]:
    return make_history([last - timedelta(days=back) for back in reversed(range(count))])


def pin(manifest: Manifest, reason: str = "") -> Manifest:
    return msgspec.structs.replace(manifest, pinned=reason)


def kept_days(plan: ForgetPlan) -> list[str]:
    return [each.time[:8] for each in plan.kept]


def rules_of(plan: ForgetPlan) -> dict[str, tuple[str, ...]]:
    """Return what keeps each snapshot that is kept, by its day."""
    return {each.manifest.time[:8]: each.rules for each in plan.verdicts if each.is_kept}


# -- worked examples ---------------------------------------------------------------------------------------------------


def test_the_policy_of_the_documentation_on_400_nights() -> None:
    policy = Policy(daily=7, weekly=4, monthly=12)
    plan = plan_policy(nights(400), policy, now=NOW, zone=UTC)
    days = [f"202611{day}" for day in (18, 19, 20, 21, 22, 23, 24)]
    weeks = ["20261108", "20261115"]  # with those of the 22nd and the 24th the last four weeks end so
    months = ["20251231", "20260131", "20260228", "20260331", "20260430", "20260531", "20260630", "20260731"]
    assert kept_days(plan) == [*months, "20260831", "20260930", "20261031", *weeks, *days]
    assert rules_of(plan)["20261124"] == ("daily", "weekly", "monthly")
    assert rules_of(plan)["20261122"] == ("daily", "weekly")
    assert rules_of(plan)["20261115"] == ("weekly",)


def test_last_counts_snapshots_whatever_their_times() -> None:
    plan = plan_policy(make_history([NOW - timedelta(hours=1), NOW, NOW, NOW]), Policy(last=2), now=NOW)
    assert [each.manifest.id[-1] for each in plan.verdicts if each.is_kept] == ["2", "3"]


def test_days_without_a_snapshot_do_not_count() -> None:
    history = make_history([NOW - timedelta(days=back) for back in (90, 60, 59, 30, 2, 0)])
    plan = plan_policy(history, Policy(daily=3), now=NOW, zone=UTC)
    assert kept_days(plan) == ["20261025", "20261122", "20261124"]


def test_the_newest_of_a_period_stands_for_it() -> None:
    history = make_history([NOW.replace(day=day, hour=hour) for day in (22, 23) for hour in (1, 5, 11)])
    plan = plan_policy(history, Policy(daily=2), now=NOW, zone=UTC)
    assert [each.taken_at.hour for each in plan.kept] == [11, 11]


def test_the_oldest_is_kept_while_periods_are_left() -> None:
    plan = plan_policy(nights(10), Policy(monthly=3), now=NOW, zone=UTC)
    assert rules_of(plan) == {"20261115": ("oldest monthly",), "20261124": ("monthly",)}
    assert len(plan_policy(nights(10), Policy(monthly=1), now=NOW, zone=UTC).kept) == 1


def test_within_counts_back_from_the_newest_snapshot_and_not_from_today() -> None:
    plan = plan_policy(nights(60, NOW - timedelta(days=300)), Policy(within=Span(days=7)), now=NOW, zone=UTC)
    assert len(plan.kept) == 8  # both ends of a span of 7 days
    assert all(each.rules == ("within 7d",) for each in plan.verdicts if each.is_kept)


def test_tags_of_one_set_are_all_asked_for_and_of_the_sets_any() -> None:
    history = make_history([NOW] * 4, tags=[("a",), ("a", "b"), ("c",), ()])
    plan = plan_policy(history, Policy(tags=(frozenset("ab"), frozenset("c"))), now=NOW)
    assert [each.rules for each in plan.verdicts] == [(), ("tag a,b",), ("tag c",), ()]


def test_unlimited_keeps_one_of_each_period() -> None:
    assert len(plan_policy(nights(100), Policy(weekly=UNLIMITED), now=NOW, zone=UTC).kept) == 16  # 15 weeks, the oldest


def test_weeks_are_those_of_the_iso_calendar_over_the_turn_of_a_year() -> None:
    history = make_history([datetime(2026, 12, 31, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)])
    later = datetime(2027, 1, 2, tzinfo=UTC)
    assert len(plan_policy(history, Policy(weekly=1), now=later, zone=UTC).kept) == 1
    assert len(plan_policy(history, Policy(yearly=2), now=later, zone=UTC).kept) == 2


# -- time zones --------------------------------------------------------------------------------------------------------


def test_the_zone_says_where_a_day_ends() -> None:
    history = make_history([datetime(2026, 11, 23, 22, 30, tzinfo=UTC), datetime(2026, 11, 23, 23, 30, tzinfo=UTC)])
    assert len(plan_policy(history, Policy(daily=1), now=NOW, zone=UTC).kept) == 1
    plan = plan_policy(history, Policy(daily=2), now=NOW, zone=BERLIN)
    assert [each.rules for each in plan.verdicts] == [("daily",), ("daily",)]


def test_the_hour_that_comes_twice_is_two_hours_and_the_day_of_25_hours_one_day() -> None:
    start = datetime(2026, 10, 24, 22, tzinfo=UTC)  # midnight in Berlin, on the day when clocks go back
    history = make_history([start + timedelta(hours=hour) for hour in range(25)])
    assert len(plan_policy(history, Policy(hourly=UNLIMITED), now=NOW, zone=BERLIN).kept) == 25
    assert len(plan_policy(history, Policy(daily=1), now=NOW, zone=BERLIN).kept) == 1


def test_a_day_back_is_the_same_time_of_day_when_clocks_change() -> None:
    noon = datetime(2026, 10, 25, 12, tzinfo=BERLIN)
    assert go_back(noon, Span(days=1), BERLIN) == datetime(2026, 10, 24, 12, tzinfo=BERLIN)
    assert noon - go_back(noon, Span(days=1), BERLIN).astimezone(BERLIN) == timedelta(hours=24)  # of the wall clock
    assert go_back(noon, Span(hours=24), BERLIN) == datetime(2026, 10, 24, 13, tzinfo=BERLIN)


def test_a_month_back_ends_with_its_month() -> None:
    assert go_back(datetime(2028, 3, 31, tzinfo=UTC), Span(months=1), UTC) == datetime(2028, 2, 29, tzinfo=UTC)
    assert go_back(datetime(2028, 2, 29, tzinfo=UTC), Span(years=1), UTC) == datetime(2027, 2, 28, tzinfo=UTC)
    assert go_back(NOW, Span(years=999999), UTC).year == 1970
    assert go_back(NOW, Span(days=999999), UTC).year == 1970


# -- clocks that jumped ------------------------------------------------------------------------------------------------


def test_a_snapshot_from_the_future_is_kept_and_takes_no_place_from_others() -> None:
    history = make_history([NOW - timedelta(days=2), NOW + timedelta(days=900), NOW - timedelta(days=1), NOW])
    plan = plan_policy(history, Policy(last=2), now=NOW)
    assert [each.rules for each in plan.verdicts] == [(), ("in the future",), ("last",), ("last",)]
    within = plan_policy(history, Policy(within=Span(hours=30)), now=NOW, zone=UTC)
    assert [each.rules for each in within.verdicts] == [(), ("in the future",), ("within 30h",), ("within 30h",)]


def test_nights_that_follow_one_from_the_future_keep_their_own_days() -> None:
    """They stand behind it by a microsecond each, so that all of them would pass for one day of the future."""
    jump = NOW - timedelta(days=5)
    moments = [jump - timedelta(days=1), jump + timedelta(days=3), *(jump + timedelta(days=day) for day in range(1, 6))]
    history = make_history(moments)
    assert len({each.time[:8] for each in history}) < len(moments)
    plan = plan_policy(history, Policy(daily=4), now=NOW, zone=UTC)
    assert [find_moment(each) for each in plan.kept] == [NOW - timedelta(days=back) for back in (3, 2, 1, 0)]


def test_a_clock_that_lost_its_date_forgets_nothing() -> None:
    plan = plan_policy(nights(30), Policy(last=1), now=datetime(1970, 1, 1, tzinfo=UTC))
    assert not plan.forgotten


def test_a_forget_in_the_far_future_keeps_as_much_as_one_today() -> None:
    policy = Policy(within=Span(days=3), daily=2)
    today = plan_policy(nights(30), policy, now=NOW, zone=UTC)
    assert plan_policy(nights(30), policy, now=NOW.replace(year=9000), zone=UTC) == today


@pytest.mark.parametrize("duration", [-5.0, 0.0, 1e300])
def test_a_manifest_with_absurd_times_has_a_moment_all_the_same(duration: float) -> None:
    statistics = msgspec.structs.replace(FULL.statistics, duration_s=duration)
    for time, started in (("00010101T000000.000000Z", None), ("99981231T235959.999999Z", "00010101T000000.000000Z")):
        manifest = msgspec.structs.replace(FULL, time=time, started=started, statistics=statistics)
        plan_policy([manifest], Policy(daily=1, within=Span(years=1)), now=NOW.replace(year=9999), zone=BERLIN)


# -- named, pinned, last -----------------------------------------------------------------------------------------------


def test_a_pinned_snapshot_is_kept_by_any_policy_and_not_forgotten_by_name() -> None:
    history = nights(5)
    history[1] = pin(history[1], "before the upgrade")
    plan = plan_policy(history, Policy(last=1), now=NOW)
    assert [each.rules for each in plan.verdicts] == [(), ("pinned",), (), (), ("last",)]
    with pytest.raises(SnapshotPinned, match="before the upgrade"):
        plan_named(history, frozenset([history[1].id]))


def test_only_named_snapshots_are_forgotten() -> None:
    history = nights(4)
    plan = plan_named(history, frozenset([history[1].id, history[3].id]))
    assert plan.forgotten == (history[1], history[3])


def test_the_last_snapshot_of_an_image_needs_force() -> None:
    history = nights(2)
    for make in (
        lambda is_forced: plan_named(history, frozenset(each.id for each in history), is_forced=is_forced),
        lambda is_forced: plan_policy(history, Policy(tags=(frozenset("x"),)), now=NOW, is_forced=is_forced),
    ):
        with pytest.raises(LastSnapshot, match="all 2 snapshots of image 'vm1'"):
            make(False)
        assert len(make(True).forgotten) == 2


# -- spans -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("30d", Span(days=30)),
        ("12h", Span(hours=12)),
        ("2w", Span(weeks=2)),
        ("1y6m", Span(years=1, months=6)),
        ("7d1y", Span(years=1, days=7)),
    ],
)
def test_spans_that_are_understood(text: str, span: Span) -> None:
    assert parse_span(text) == span
    assert parse_span(str(span)) == span


@pytest.mark.parametrize(
    "text", ["", "30", "d", "30D", "-3d", "1.5d", "3d ", "3d3d", "0d", "3s", "9999999d", "3d\n", "٣d"]
)
def test_spans_that_are_none(text: str) -> None:
    with pytest.raises(UsageError):
        parse_span(text)


# -- for any history ---------------------------------------------------------------------------------------------------

_moments = st.lists(
    st.datetimes(datetime(2024, 1, 1), datetime(2027, 12, 31)).map(lambda each: each.replace(tzinfo=UTC)), max_size=30
)
_counts = st.integers(0, 5) | st.just(UNLIMITED)
_policies = st.builds(
    Policy,
    last=_counts,
    hourly=_counts,
    daily=_counts,
    weekly=_counts,
    monthly=_counts,
    yearly=_counts,
    within=st.none() | st.builds(Span, *(st.integers(0, 40) for _ in range(5))).filter(lambda span: str(span) != ""),
    tags=st.sampled_from([(), (frozenset("a"),)]),
)
_zones = st.sampled_from([None, UTC, BERLIN, ZoneInfo("Australia/Lord_Howe"), ZoneInfo("Pacific/Apia")])
_nows = st.datetimes(datetime(2023, 1, 1), datetime(2029, 1, 1)).map(lambda each: each.replace(tzinfo=UTC))


@settings(max_examples=60, deadline=None)
@given(_moments, _policies, _zones, _nows, st.data())
def test_running_an_interrupted_forget_again_keeps_the_same(
    moments: list[datetime], policy: Policy, zone: tzinfo | None, now: datetime, data: st.DataObject
) -> None:
    history = make_history(moments, tags=[data.draw(st.sampled_from([(), ("a",)])) for _ in moments])
    plan = plan_policy(history, policy, now=now, zone=zone, is_forced=True)
    gone = {each.id for each in plan.forgotten if data.draw(st.booleans())}
    rest = [each for each in history if each.id not in gone]
    again = plan_policy(rest, policy, now=now, zone=zone, is_forced=True)
    assert [each.id for each in again.kept] == [each.id for each in plan.kept]


@settings(max_examples=60, deadline=None)
@given(_moments, _policies, _zones, _nows)
def test_what_any_policy_keeps(moments: list[datetime], policy: Policy, zone: tzinfo | None, now: datetime) -> None:
    history = make_history(moments)
    plan = plan_policy(history, policy, now=now, zone=zone, is_forced=True)
    assert [each.manifest for each in plan.verdicts] == history
    rules = [set(each.rules) for each in plan.verdicts]
    is_dated = [moment <= now for moment in moments]
    assert [("in the future" in each) for each in rules] == [not dated for dated in is_dated]
    for name, count in policy.periods:
        assert sum(name in each for each in rules) <= count
        assert sum(f"oldest {name}" in each for each in rules) <= 1
        assert not count or not any(is_dated) or any(name in each for each in rules)
    newest = max((place for place, dated in enumerate(is_dated) if dated), default=None)
    if newest is not None and any(count for _, count in policy.periods):
        assert plan.verdicts[newest].is_kept


@settings(max_examples=60, deadline=None)
@given(_moments, _policies, _zones, _nows)
def test_a_larger_policy_keeps_all_that_a_smaller_one_does(
    moments: list[datetime], policy: Policy, zone: tzinfo | None, now: datetime
) -> None:
    history = make_history(moments)
    larger = Policy(**{name: count + 1 for name, count in policy.periods}, within=policy.within, tags=policy.tags)
    small, large = (
        {each.id for each in plan_policy(history, each, now=now, zone=zone, is_forced=True).kept}
        for each in (policy, larger)
    )
    assert small <= large


@settings(max_examples=60, deadline=None)
@given(_moments, _zones, _nows)
def test_days_are_kept_without_a_gap_up_to_the_newest(
    moments: list[datetime], zone: tzinfo | None, now: datetime
) -> None:
    """The newest n days that have snapshots, and no older one in place of a newer one."""
    history = make_history(sorted(moments))
    plan = plan_policy(history, Policy(daily=3), now=now, zone=zone, is_forced=True)
    all_days = sorted({moment.astimezone(zone).date() for moment in moments if moment <= now})
    kept = [find_moment(each.manifest).astimezone(zone).date() for each in plan.verdicts if "daily" in each.rules]
    assert kept == all_days[-3:]
    assert all(first < second for first, second in pairwise(kept))
