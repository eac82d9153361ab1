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

from deltaimg.errors import IntegrityError, LastSnapshot, SnapshotPinned, UsageError
from deltaimg.format.annotation import Annotation
from deltaimg.format.manifest import format_time
from deltaimg.options.keep import UNLIMITED, Policy, Span, parse_span
from deltaimg.repo.annotations import Said
from deltaimg.repo.retention import ForgetPlan, go_back, plan_named, plan_policy
from deltaimg.repo.snapshots import DamagedSnapshot, Snapshot
from tests.golden.samples import FULL

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def make_history(moments: Sequence[datetime], tags: Sequence[tuple[str, ...]] = ()) -> list[Snapshot]:
    """Return a snapshot for each moment, in a row, as backups at these moments make them: time never goes back."""
    history: list[Snapshot] = []
    for number, moment in enumerate(moments):
        time = moment
        if history:
            time = max(time, history[-1].manifest.taken_at + timedelta(microseconds=1))
        manifest = msgspec.structs.replace(
            FULL,
            id=f"{number:016x}",
            time=format_time(time),
            started=format_time(moment - timedelta(milliseconds=125)),
            ended=format_time(moment),
            tags=tags[number] if tags else (),
        )
        history.append(Snapshot(manifest))
    return history


def days_of(count: int, last: datetime = NOW) -> list[Snapshot]:
    """Return a snapshot a day, the last one at `last`."""
    return make_history([last - timedelta(days=back) for back in reversed(range(count))])


def pin(snapshot: Snapshot, reason: str = "") -> Snapshot:
    ref = snapshot.ref
    annotation = Annotation(image=ref.image, snapshot=ref.id, number=1, time=ref.time, pinned=reason)
    return Snapshot(snapshot.manifest, Said(annotation, None))


def moments_of(history: Sequence[Snapshot], plan: ForgetPlan) -> list[datetime]:
    """Return when each snapshot that is kept was taken, by its own clock."""
    kept = set(plan.kept)
    return [each.manifest.ended_at for each in history if each.ref in kept]


def kept_days(plan: ForgetPlan) -> list[str]:
    return [each.time[:8] for each in plan.kept]


def rules_of(plan: ForgetPlan) -> dict[str, tuple[str, ...]]:
    """Return what keeps each snapshot that is kept, by its day, but for that it is the newest."""
    return {each.ref.time[:8]: without_newest(each.rules) for each in plan.verdicts if each.is_kept}


def without_newest(rules: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(rule for rule in rules if rule != "newest")


def list_rules(plan: ForgetPlan) -> list[tuple[str, ...]]:
    return [without_newest(each.rules) for each in plan.verdicts]


# -- worked examples ---------------------------------------------------------------------------------------------------


def test_the_policy_of_the_documentation_on_400_days() -> None:
    policy = Policy(daily=7, weekly=4, monthly=12)
    plan = plan_policy(days_of(400), policy, now=NOW, zone=UTC)
    days = [f"202611{day}" for day in (18, 19, 20, 21, 22, 23, 24)]
    weeks = ["20261108", "20261115"]  # with those of the 22nd and the 24th the last four weeks end so
    months = ["20251231", "20260131", "20260228", "20260331", "20260430", "20260531", "20260630", "20260731"]
    assert kept_days(plan) == [*months, "20260831", "20260930", "20261031", *weeks, *days]
    assert rules_of(plan)["20261124"] == ("daily", "weekly", "monthly")
    assert rules_of(plan)["20261122"] == ("daily", "weekly")
    assert rules_of(plan)["20261115"] == ("weekly",)


def test_last_counts_snapshots_whatever_their_times() -> None:
    plan = plan_policy(make_history([NOW - timedelta(hours=1), NOW, NOW, NOW]), Policy(last=2), now=NOW)
    assert [each.ref.id[-1] for each in plan.verdicts if each.is_kept] == ["2", "3"]


def test_days_without_a_snapshot_do_not_count() -> None:
    history = make_history([NOW - timedelta(days=back) for back in (90, 60, 59, 30, 2, 0)])
    plan = plan_policy(history, Policy(daily=3), now=NOW, zone=UTC)
    assert kept_days(plan) == ["20261025", "20261122", "20261124"]


def test_the_newest_of_a_period_stands_for_it() -> None:
    history = make_history([NOW.replace(day=day, hour=hour) for day in (22, 23) for hour in (1, 5, 11)])
    plan = plan_policy(history, Policy(daily=2), now=NOW, zone=UTC)
    assert [each.taken_at.hour for each in plan.kept] == [11, 11]


def test_the_oldest_is_kept_while_periods_are_left() -> None:
    plan = plan_policy(days_of(10), Policy(monthly=3), now=NOW, zone=UTC)
    assert rules_of(plan) == {"20261115": ("oldest monthly",), "20261124": ("monthly",)}
    assert len(plan_policy(days_of(10), Policy(monthly=1), now=NOW, zone=UTC).kept) == 1


def test_within_counts_back_from_the_newest_snapshot_and_not_from_today() -> None:
    plan = plan_policy(days_of(60, NOW - timedelta(days=300)), Policy(within=Span(days=7)), now=NOW, zone=UTC)
    assert len(plan.kept) == 8  # both ends of a span of 7 days
    assert set(rules_of(plan).values()) == {("within 7d",)}


def test_tags_of_one_set_are_all_asked_for_and_of_the_sets_any() -> None:
    history = make_history([NOW] * 4, tags=[("a",), ("a", "b"), ("c",), ()])
    plan = plan_policy(history, Policy(tags=(frozenset("ab"), frozenset("c"))), now=NOW)
    assert list_rules(plan) == [(), ("tag a,b",), ("tag c",), ()]
    assert plan.verdicts[-1].rules == ("newest",)


def test_unlimited_keeps_one_of_each_period() -> None:
    assert (
        len(plan_policy(days_of(100), Policy(weekly=UNLIMITED), now=NOW, zone=UTC).kept) == 16
    )  # 15 weeks, the oldest


def test_weeks_are_those_of_the_iso_calendar_over_the_turn_of_a_year() -> None:
    history = make_history([datetime(2026, 12, 31, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)])
    later = datetime(2027, 1, 2, tzinfo=UTC)
    assert len(plan_policy(history, Policy(weekly=1), now=later, zone=UTC).kept) == 1
    assert len(plan_policy(history, Policy(yearly=2), now=later, zone=UTC).kept) == 2


# -- time zones --------------------------------------------------------------------------------------------------------

CLOCK_CHANGES = [
    # By half an hour, by two hours, at midnight, in both halves of the world.
    ("Europe/Berlin", datetime(2026, 3, 28, 18, tzinfo=UTC), timedelta(hours=1)),
    ("Europe/Berlin", datetime(2026, 10, 24, 18, tzinfo=UTC), timedelta(hours=-1)),
    ("America/New_York", datetime(2026, 3, 8, 0, tzinfo=UTC), timedelta(hours=1)),
    ("America/New_York", datetime(2026, 11, 1, 0, tzinfo=UTC), timedelta(hours=-1)),
    ("Australia/Lord_Howe", datetime(2026, 10, 3, 9, tzinfo=UTC), timedelta(minutes=30)),
    ("Australia/Lord_Howe", datetime(2026, 4, 4, 9, tzinfo=UTC), timedelta(minutes=-30)),
    ("America/Santiago", datetime(2026, 9, 5, 20, tzinfo=UTC), timedelta(hours=1)),
    ("America/Santiago", datetime(2026, 4, 4, 20, tzinfo=UTC), timedelta(hours=-1)),
    ("Antarctica/Troll", datetime(2026, 3, 28, 18, tzinfo=UTC), timedelta(hours=2)),
    ("Antarctica/Troll", datetime(2026, 10, 24, 18, tzinfo=UTC), timedelta(hours=-2)),
]
"""A zone, a moment some hours before its clocks change, and by how much they do."""


def test_the_zone_says_where_a_day_ends() -> None:
    history = make_history([datetime(2026, 11, 23, 22, 30, tzinfo=UTC), datetime(2026, 11, 23, 23, 30, tzinfo=UTC)])
    assert len(plan_policy(history, Policy(daily=1), now=NOW, zone=UTC).kept) == 1
    plan = plan_policy(history, Policy(daily=2), now=NOW, zone=BERLIN)
    assert list_rules(plan) == [("daily",), ("daily",)]


@pytest.mark.parametrize(("name", "start", "change"), CLOCK_CHANGES)
def test_each_hour_around_a_change_of_clocks_is_an_hour(name: str, start: datetime, change: timedelta) -> None:
    zone = ZoneInfo(name)
    moments = [start + timedelta(minutes=15 * number) for number in range(4 * 16)]
    offsets = [moment.astimezone(zone).utcoffset() or timedelta() for moment in moments]
    assert offsets[-1] - offsets[0] == change
    # An hour of the wall clock begins where minutes are 0, and where the offset changes.
    begins = [
        place
        for place, moment in enumerate(moments)
        if not place or moment.astimezone(zone).minute == 0 or offsets[place] != offsets[place - 1]
    ]
    history = make_history(moments)
    last_of_each = [history[place - 1].ref for place in begins[1:]] + [history[-1].ref]
    assert list(plan_policy(history, Policy(hourly=UNLIMITED), now=NOW, zone=zone).kept) == [
        history[0].ref,
        *last_of_each,
    ]
    for count in range(1, len(last_of_each)):
        assert list(plan_policy(history, Policy(hourly=count), now=NOW, zone=zone).kept) == last_of_each[-count:]


@pytest.mark.parametrize(("name", "start", "change"), CLOCK_CHANGES)
def test_spans_over_a_change_of_clocks_keep_no_hour_too_little(name: str, start: datetime, change: timedelta) -> None:
    zone = ZoneInfo(name)
    for number in range(4 * 40):
        moment = start + timedelta(minutes=15 * number)
        assert go_back(moment, Span(hours=24), zone) == moment - timedelta(hours=24)
        back = moment - go_back(moment, Span(days=1), zone)
        assert timedelta(hours=24) - abs(change) <= back <= timedelta(hours=24) + abs(change)
        local, earlier = moment.astimezone(zone), go_back(moment, Span(days=1), zone).astimezone(zone)
        wall = (local.replace(tzinfo=None) - earlier.replace(tzinfo=None)) - timedelta(days=1)
        # The same time of day, or, where the clock left that out, the time before which it did.
        assert wall in (timedelta(), max(change, timedelta()))


def test_the_day_of_25_hours_is_one_day() -> None:
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
    assert list_rules(plan) == [(), ("in the future",), ("last",), ("last",)]
    within = plan_policy(history, Policy(within=Span(hours=30)), now=NOW, zone=UTC)
    assert list_rules(within) == [(), ("in the future",), ("within 30h",), ("within 30h",)]


def test_snapshots_that_follow_one_from_the_future_keep_their_own_days() -> None:
    """They are listed behind it by a microsecond each, so that all of them would pass for one day of the future."""
    jump = NOW - timedelta(days=5)
    moments = [jump - timedelta(days=1), jump + timedelta(days=9), *(jump + timedelta(days=day) for day in range(1, 6))]
    history = make_history(moments)
    assert len({each.ref.time[:8] for each in history}) < len(moments)
    plan = plan_policy(history, Policy(daily=4), now=NOW, zone=UTC)
    future, *kept = moments_of(history, plan)
    assert future > NOW
    assert kept == [NOW - timedelta(days=back) for back in (3, 2, 1, 0)]


LOST = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("wrong", [LOST, LOST.replace(year=2023), NOW + timedelta(days=4000)])
@pytest.mark.parametrize("count", [1, 3, 9])
@pytest.mark.parametrize("behind", [0, 1, 12])
def test_wrong_dates_take_no_good_day(wrong: datetime, count: int, behind: int) -> None:
    """Any number of backups ran with a wrong date, and then any number of good ones; good days count as if alone."""
    good = [NOW - timedelta(days=back) for back in reversed(range(20))]
    cut = len(good) - behind
    wrongs = [wrong + timedelta(days=number) for number in range(count)]
    history = make_history([*good[:cut], *wrongs, *good[cut:]])
    for policy in (Policy(daily=7), Policy(within=Span(days=7)), Policy(hourly=5), Policy(weekly=2)):
        alone = make_history(good)
        expected = moments_of(alone, plan_policy(alone, policy, now=NOW, zone=UTC))
        kept = moments_of(history, plan_policy(history, policy, now=NOW, zone=UTC))
        assert set(expected) <= set(kept)
        assert history[-1].manifest.ended_at in kept


@pytest.mark.parametrize("policy", [Policy(daily=7), Policy(within=Span(days=30)), Policy(hourly=3)])
@pytest.mark.parametrize("ahead", [1, 20, 60])
@pytest.mark.parametrize("later", [0, 30, 70])
def test_a_clock_that_was_ahead_and_came_back_takes_no_good_day(policy: Policy, ahead: int, later: int) -> None:
    """Also long after, when what was the future is the past."""
    good = [NOW - timedelta(days=back) for back in reversed(range(10))]
    history = make_history([*good[:8], good[7] + timedelta(days=ahead), *good[8:]])
    plan = plan_policy(history, policy, now=NOW + timedelta(days=later), zone=UTC)
    alone = make_history(good)
    expected = moments_of(alone, plan_policy(alone, policy, now=NOW, zone=UTC))
    assert set(expected) <= set(moments_of(history, plan))
    assert plan.verdicts[-1].is_kept


def test_old_contradictions_do_not_keep_snapshots_for_ever() -> None:
    good = [NOW - timedelta(days=back) for back in reversed(range(100))]
    lost = [LOST + timedelta(days=number) for number in range(5)]
    history = make_history([*good[:40], *lost, *good[40:50], good[50] + timedelta(days=9), *good[50:]])
    for policy in (Policy(daily=7), Policy(within=Span(days=6))):
        plan = plan_policy(history, policy, now=NOW, zone=UTC)
        assert moments_of(history, plan) == good[-7:]


def test_a_clock_set_right_during_a_run_dates_its_snapshot_by_the_end() -> None:
    first = make_history([NOW - timedelta(days=1)])[0]
    started = format_time(NOW.replace(year=2020))
    manifest = msgspec.structs.replace(
        first.manifest, id="f" * 16, time=format_time(NOW), started=started, ended=format_time(NOW)
    )
    for policy in (Policy(daily=2), Policy(within=Span(days=30)), Policy(last=2)):
        assert not plan_policy([first, Snapshot(manifest)], policy, now=NOW, zone=UTC).forgotten


def test_an_image_that_was_imported_under_its_time_counts_on_that_day() -> None:
    """All imports end on one day; each counted there, so that a policy kept two of them."""
    history = [
        Snapshot(msgspec.structs.replace(each.manifest, started=format_time(NOW), ended=format_time(NOW)))
        for each in days_of(30)
    ]
    for policy in (Policy(daily=7), Policy(within=Span(days=7))):
        imported, as_taken = (plan_policy(each, policy, now=NOW, zone=UTC) for each in (history, days_of(30)))
        assert kept_days(imported) == kept_days(as_taken)


def test_a_clock_that_lost_its_date_forgets_nothing() -> None:
    plan = plan_policy(days_of(30), Policy(last=1), now=datetime(1970, 1, 1, tzinfo=UTC))
    assert not plan.forgotten


def test_a_forget_in_the_far_future_keeps_as_much_as_one_today() -> None:
    policy = Policy(within=Span(days=3), daily=2)
    today = plan_policy(days_of(30), policy, now=NOW, zone=UTC)
    assert plan_policy(days_of(30), policy, now=NOW.replace(year=9000), zone=UTC) == today


@pytest.mark.parametrize("ended", ["00010101T000000.000000Z", "99981231T235959.999999Z"])
def test_absurd_times_can_be_judged_all_the_same(ended: str) -> None:
    manifest = msgspec.structs.replace(FULL, time="99981231T235959.999999Z", started=ended, ended=ended)
    later = NOW.replace(year=9999)
    plan_policy([Snapshot(manifest)], Policy(daily=1, within=Span(years=1)), now=later, zone=BERLIN)


# -- named, pinned, last -----------------------------------------------------------------------------------------------


def test_a_pinned_snapshot_is_kept_by_any_policy_and_not_forgotten_by_name() -> None:
    history = days_of(5)
    history[1] = pin(history[1], "before the upgrade")
    plan = plan_policy(history, Policy(last=1), now=NOW)
    assert list_rules(plan) == [(), ("pinned",), (), (), ("last",)]
    with pytest.raises(SnapshotPinned, match="before the upgrade"):
        plan_named(history, frozenset([history[1].ref.id]))


def test_a_snapshot_whose_annotation_is_damaged_may_be_pinned() -> None:
    history = days_of(3)
    history[0] = Snapshot(history[0].manifest, Said(None, IntegrityError("annotations/vm1/x", 0, "is damaged")))
    assert list_rules(plan_policy(history, Policy(last=1), now=NOW))[0] == ("annotation damaged",)
    with pytest.raises(SnapshotPinned, match="is damaged"):
        plan_named(history, frozenset([history[0].ref.id]), is_forced=True)


def test_a_damaged_snapshot_stays_under_a_policy_takes_no_place_and_is_forgotten_by_name() -> None:
    history = days_of(6)
    for place in (2, 5):
        history[place] = DamagedSnapshot(history[place].ref, IntegrityError("x", 0, "is damaged"))  # type: ignore[call-overload]
    plan = plan_policy(history, Policy(daily=2), now=NOW, zone=UTC)
    assert [each.rules for each in plan.verdicts] == [
        (),
        (),
        ("damaged",),
        ("daily",),
        ("newest", "daily"),
        ("damaged",),
    ]
    assert plan_named(history, frozenset([history[5].ref.id])).forgotten == (history[5].ref,)


def test_only_named_snapshots_are_forgotten() -> None:
    history = days_of(4)
    plan = plan_named(history, frozenset([history[1].ref.id, history[3].ref.id]))
    assert plan.forgotten == (history[1].ref, history[3].ref)


def test_the_last_snapshot_of_an_image_needs_force() -> None:
    history = days_of(2)
    ids = frozenset(each.ref.id for each in history)
    with pytest.raises(LastSnapshot, match="all 2 snapshots of image 'vm1'"):
        plan_named(history, ids)
    assert len(plan_named(history, ids, is_forced=True).forgotten) == 2


def test_the_newest_snapshot_stays_under_any_policy() -> None:
    plan = plan_policy(days_of(2), Policy(tags=(frozenset("x"),)), now=NOW)
    assert [each.rules for each in plan.verdicts] == [(), ("newest",)]


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


_PERIODS = ("last", "hourly", "daily", "weekly", "monthly", "yearly")


@settings(max_examples=60, deadline=None)
@given(_moments, _policies, _zones, _nows, st.data())
def test_running_an_interrupted_forget_again_keeps_the_same(
    moments: list[datetime], policy: Policy, zone: tzinfo | None, now: datetime, data: st.DataObject
) -> None:
    """Some clocks ahead of now included, as long as those that are not agree with the order."""
    past = iter(sorted(moment for moment in moments if moment <= now))
    moments = [moment if moment > now else next(past) for moment in moments]
    history = make_history(moments, tags=[data.draw(st.sampled_from([(), ("a",)])) for _ in moments])
    plan = plan_policy(history, policy, now=now, zone=zone)
    gone = {each for each in plan.forgotten if data.draw(st.booleans())}
    again = plan_policy([each for each in history if each.ref not in gone], policy, now=now, zone=zone)
    assert again.kept == plan.kept


@settings(max_examples=60, deadline=None)
@given(_moments, _policies, _zones, _nows)
def test_what_any_policy_keeps(moments: list[datetime], policy: Policy, zone: tzinfo | None, now: datetime) -> None:
    history = make_history(moments)
    plan = plan_policy(history, policy, now=now, zone=zone)
    assert [each.ref for each in plan.verdicts] == [each.ref for each in history]
    rules = [set(each.rules) for each in plan.verdicts]
    is_dated = [moment <= now for moment in moments]
    assert [("in the future" in each) for each in rules] == [not dated for dated in is_dated]
    agree = [moment for moment, dated in zip(moments, is_dated, strict=True) if dated]
    readings = 1 if agree == sorted(agree) else 2
    for name in _PERIODS:
        count = getattr(policy, name)
        assert sum(name in each for each in rules) <= readings * count
        assert sum(f"oldest {name}" in each for each in rules) <= readings
        assert not count or not any(is_dated) or any(name in each for each in rules)
    assert not plan.verdicts or plan.verdicts[-1].is_kept


@settings(max_examples=60, deadline=None)
@given(_moments, _policies, _zones, _nows)
def test_a_larger_policy_keeps_all_that_a_smaller_one_does(
    moments: list[datetime], policy: Policy, zone: tzinfo | None, now: datetime
) -> None:
    history = make_history(moments)
    counts = {name: getattr(policy, name) + 1 for name in _PERIODS}
    larger = Policy(**counts, within=policy.within, tags=policy.tags)
    small, large = (set(plan_policy(history, each, now=now, zone=zone).kept) for each in (policy, larger))
    assert small <= large


@settings(max_examples=60, deadline=None)
@given(_moments, _zones, _nows)
def test_days_are_kept_without_a_gap_up_to_the_newest(
    moments: list[datetime], zone: tzinfo | None, now: datetime
) -> None:
    """The newest n days that have snapshots, and no older one in place of a newer one."""
    history = make_history(sorted(moments))
    plan = plan_policy(history, Policy(daily=3), now=now, zone=zone)
    all_days = sorted({moment.astimezone(zone).date() for moment in moments if moment <= now})
    daily = {each.ref for each in plan.verdicts if "daily" in each.rules}
    kept = [each.manifest.ended_at.astimezone(zone).date() for each in history if each.ref in daily]
    assert kept == all_days[-3:]
    assert all(first < second for first, second in pairwise(kept))
