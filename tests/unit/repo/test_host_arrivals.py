# SPDX-License-Identifier: Apache-2.0
"""Snapshots of any date and number, stored by an intruder on a backup host: a policy forgets no good one because of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltaimg.api.retention import forget as forget_by_policy
from deltaimg.api.verification import accept_state
from deltaimg.format.manifest import format_time
from deltaimg.options.keep import Policy, Span
from deltaimg.repo import host_files
from deltaimg.repo.host_arrivals import accept_arrivals, note_arrivals
from deltaimg.repo.repository import SnapshotRef
from deltaimg.repo.retention import ForgetPlan, find_moment, plan_policy
from deltaimg.repo.snapshots import Snapshot
from tests.golden.samples import FULL
from tests.support.clock import FixedClock
from tests.support.images import SyntheticImage
from tests.support.repositories import Warnings, back_up_image, make_repository

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
DAY = timedelta(days=1)
POLICIES = [
    Policy(last=5),
    Policy(hourly=24),
    Policy(daily=7),
    Policy(weekly=3),
    Policy(monthly=2, last=2),
    Policy(within=Span(days=5)),
    Policy(daily=7, weekly=4, monthly=12),
]


def make(moment: datetime, number: int, ended: datetime | None = None) -> Snapshot:
    manifest = msgspec.structs.replace(
        FULL, id=f"{number:016x}", time=format_time(moment), ended=format_time(ended or moment), tags=()
    )
    return Snapshot(manifest)


def forget(history: Sequence[Snapshot], policy: Policy, now: datetime = NOW) -> ForgetPlan:
    """As `forget` does on the host that remembers."""
    doubtful = note_arrivals("1e" * 16, "vm1", {each.ref: find_moment(each.manifest) for each in history}, now)
    return plan_policy(history, policy, now=now, zone=UTC, doubtful=doubtful)


def good_history(days: int = 40) -> list[Snapshot]:
    return [make(NOW - back * DAY, 1000 - back) for back in reversed(range(days))]


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@pytest.mark.parametrize("attack", ["the future", "after each good one", "just now", "on every day to come"])
def test_a_flood_pushes_no_good_snapshot_out(policy: Policy, attack: str) -> None:
    good = good_history()
    if attack == "the future":
        flood = [make(NOW + timedelta(minutes=61 + number), 5000 + number) for number in range(500)]
    elif attack == "on every day to come":
        flood = [make(NOW + number * DAY - timedelta(seconds=1), 5000 + number) for number in range(1, 60)]
    elif attack == "after each good one":
        flood = [make(each.manifest.taken_at + timedelta(hours=2), 5000 + n) for n, each in enumerate(good[:-1])]
    else:
        flood = [make(NOW - timedelta(seconds=number + 1), 5000 + number) for number in range(500)]
    alone = forget(good, policy)
    attacked = forget([*good, *flood], policy)
    assert set(alone.kept) <= set(attacked.kept)
    assert set(attacked.doubtful) == {each.ref for each in flood}
    # Their dates come, and backups go on.
    for days in range(1, 10):
        now = NOW + days * DAY
        good.append(make(max(now, flood[-1].manifest.taken_at + timedelta(days=days)), 1000 + days, ended=now))
        plan = forget([*good, *flood], policy, now)
        assert set(plan_policy(good, policy, now=now, zone=UTC).kept) <= set(plan.kept)
        assert {each.ref for each in flood} == set(plan.doubtful)


@settings(max_examples=60)
@given(
    policy=st.sampled_from(POLICIES),
    flood=st.lists(st.integers(-60 * 24, 60 * 24), max_size=60, unique=True),
    days=st.integers(1, 30),
)
def test_whatever_is_doubtful_displaces_nothing(policy: Policy, flood: list[int], days: int) -> None:
    good = good_history(days)
    forged = [make(NOW + timedelta(hours=hours, seconds=7), 5000 + number) for number, hours in enumerate(flood)]
    doubtful = [each.ref.id for each in forged]
    kept = plan_policy([*good, *forged], policy, now=NOW, zone=UTC, doubtful=doubtful).kept
    assert set(plan_policy(good, policy, now=NOW, zone=UTC).kept) <= set(kept)


def test_what_is_made_in_its_turn_is_never_doubted() -> None:
    history = []
    for number in range(20):
        now = NOW + number * DAY
        history.append(make(now, number))
        plan = forget(history, Policy(daily=5), now + timedelta(seconds=1))
        assert not plan.doubtful
        history = [each for each in history if each.ref in plan.kept]


def test_after_a_flood_was_forgotten_by_name_nothing_is_doubted() -> None:
    good = good_history(3)
    forget(good, Policy(last=3))
    flood = [make(NOW + 400 * DAY, 5000)]
    assert forget([*good, *flood], Policy(last=3)).doubtful
    good.append(make(NOW + 400 * DAY + DAY, 2000, ended=NOW + DAY))  # after the newest, as backups are listed
    assert len(forget([*good, *flood], Policy(last=3), NOW + DAY).doubtful) == 1
    good = [*good[:-1], make(NOW + 2 * DAY, 2001)]
    assert not forget(good, Policy(last=3), NOW + 2 * DAY).doubtful


def test_late_arrivals_are_accepted() -> None:
    good = good_history(5)
    forget(good[2:], Policy(last=9))
    assert set(forget(good, Policy(last=9)).doubtful) == {each.ref for each in good[:2]}
    assert accept_arrivals("1e" * 16) == {"vm1": 2}
    assert accept_arrivals("1e" * 16) == {}
    assert not forget(good, Policy(last=9)).doubtful


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"images":{"vm1":5}}'], ids=repr)
def test_a_damaged_file_is_as_none(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_files, "read_file", lambda *_: content)
    assert not forget(good_history(3), Policy(last=9)).doubtful


def test_images_are_remembered_apart() -> None:
    moments = {SnapshotRef("vm1", format_time(NOW), "00" * 8): NOW}
    note_arrivals("1e" * 16, "vm1", moments, NOW)
    older = {SnapshotRef("vm2", format_time(NOW - DAY), "01" * 8): NOW - DAY}
    assert not note_arrivals("1e" * 16, "vm2", older, NOW)


def test_a_forget_by_policy_says_what_it_doubts_and_keeps_the_good_ones() -> None:
    repository, image, clock = make_repository(), SyntheticImage(20_000), FixedClock()
    good = []
    for _ in range(3):
        clock.advance(days=1)
        image.write_random(0, 4096)
        good.append(back_up_image(repository, image, clock=clock))
    policy, warned = Policy(daily=3), Warnings()
    forget_by_policy(repository, policy, now=clock(), zone=UTC, progress=warned)
    for number, each in enumerate(good[:2]):
        later = format_time(each.taken_at + timedelta(minutes=5))
        repository.commit(msgspec.structs.replace(each, id=f"{number:016x}", time=later, ended=later))
    (found,) = forget_by_policy(repository, policy, now=clock(), zone=UTC, progress=warned)
    assert found.plan is not None
    assert {SnapshotRef.of(each) for each in good} <= set(found.plan.kept)
    assert len(warned.messages) == 1
    assert "2 snapshots of 'vm1', such as vm1@" in warned.messages[0]
    assert accept_state(repository) == ["snapshots/vm1/: 2 snapshots whose dates were doubtful"]
