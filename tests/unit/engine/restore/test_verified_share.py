# SPDX-License-Identifier: Apache-2.0
"""`verify` remembers what it has verified: every part gets its turn, and never more is remembered than was verified."""

from __future__ import annotations

import numpy as np
import pytest

from deltaimg.engine.restore.verify import VerifyReport, verify
from deltaimg.errors import PermissionDenied
from deltaimg.format.manifest import count_microseconds
from deltaimg.format.verified import VERIFIED, VerifiedObject, build_verified, parse_verified
from deltaimg.repo.repository import Repository
from deltaimg.store.memory import MemoryStore
from tests.support.clock import START, FixedClock
from tests.support.faults import FaultyStore
from tests.support.flips import flip_object
from tests.support.images import edit_at_random, make_mixed_image
from tests.support.repositories import Warnings, back_up_image, make_repository
from tests.support.wrapping import WatchedStore


def make_many_backups(count: int = 8) -> Repository:
    repository = make_repository()
    image = make_mixed_image(500_000, seed=8)
    for _ in range(count):
        back_up_image(repository, image)
        edit_at_random(image)
    return repository


def run(repository: Repository, percent: float = 100, **options: object) -> VerifyReport:
    options.setdefault("clock", FixedClock())
    return verify(repository, repository.list_snapshots(), percent=percent, workers=1, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("percent", [5, 20, 30, 60])
def test_daily_runs_verify_all_content_within_the_promised_days(percent: float) -> None:
    repository = make_many_backups()
    clock = FixedClock()
    days = -(-100 // percent)
    for _ in range(days):
        clock.advance(days=1)
        report = run(repository, percent, clock=clock)
        assert not any(each.damage for each in report)
        assert report.verified_share.run_percent >= percent - 0.001
    assert report.verified_share.never_percent == 0
    for _ in range(days):
        clock.advance(days=1)
        report = run(repository, percent, clock=clock)
    assert report.verified_share.verified_since is not None
    assert (clock() - report.verified_share.verified_since).days < days


@pytest.mark.parametrize("wrong_days", [3650, -3650])
def test_a_clock_that_was_wrong_takes_no_content_its_turn(wrong_days: int) -> None:
    """What was verified in 2036 by the clock waited until 2036; with a clock that is behind, the same part came every day."""
    repository = make_many_backups()
    clock = FixedClock()
    clock.advance(days=max(wrong_days, 0))
    run(repository, clock=clock)
    clock.advance(days=-3650)
    for _ in range(4):
        clock.advance(days=1)
        run(repository, 30, clock=clock)
    store = repository.objects.store
    assert isinstance(store, MemoryStore)
    assert parse_verified(store.objects[VERIFIED]).verified_us.max() <= count_microseconds(clock())


def test_a_full_run_verifies_all() -> None:
    repository = make_many_backups(3)
    verified_share = run(repository).verified_share
    assert (verified_share.verified_since, verified_share.never_percent, verified_share.run_percent) == (START, 0, 100)


def test_damaged_content_stays_unproven_and_is_read_again_first() -> None:
    repository = make_many_backups()
    store = repository.objects.store
    assert isinstance(store, MemoryStore)
    run(repository)
    pack = [name for name in store.objects if name.startswith("packs/")][3]
    flip_object(store, pack, 200)
    clock = FixedClock()
    for _ in range(3):
        clock.advance(days=40)
        reports = [run(repository, 30, clock=clock) for _ in range(4)]
        assert any(each.damage for report in reports for each in report)
        assert reports[-1].verified_share.verified_since == START


def test_damage_below_a_delta_is_told_with_the_extents_that_need_it() -> None:
    repository = make_many_backups(3)
    store = repository.objects.store
    assert isinstance(store, MemoryStore)
    first = repository.load_manifest(repository.list_snapshots()[0])
    for pack in [name for name in store.objects if name.startswith("packs/")]:
        before = store.objects[pack]
        flip_object(store, pack, 64 + 64 + 5)
        found = [each.damage for each in run(repository, 0.001, seed=1)]
        full = [each.damage for each in run(repository)]
        for some, all_of_it in zip(found, full, strict=True):
            assert {(d.start, d.end) for d in some} <= {(d.start, d.end) for d in all_of_it}
        store.objects[pack] = before
        store.objects.pop(VERIFIED)
    assert first.size_bytes == 500_000


def test_some_snapshots_verify_no_more_than_themselves() -> None:
    repository = make_many_backups(4)
    back_up_image(repository, make_mixed_image(300_000, seed=99), "another")
    newest = repository.list_snapshots("vm1")[-1]
    report = verify(repository, [newest], clock=FixedClock(), workers=1)
    assert report.verified_share.never_percent > 0
    part = verify(repository, [newest], percent=10, seed=1, clock=FixedClock(), workers=1)
    assert 0 < part[0].records <= part[0].records_total


def test_a_damaged_object_is_started_again_with_a_warning() -> None:
    repository = make_many_backups(4)
    store = repository.objects.store
    assert isinstance(store, MemoryStore)
    run(repository)
    flip_object(store, VERIFIED, 70)
    progress = Warnings()
    report = run(repository, 1, progress=progress)
    assert any("verified" in message for message in progress.messages)
    assert report.verified_share.never_percent > 0
    assert len(parse_verified(store.objects[VERIFIED]).packs)


def test_a_repository_that_cannot_be_written_is_verified_all_the_same() -> None:
    repository = make_many_backups(2)
    counting = WatchedStore(repository.objects.store)
    run(Repository(counting, repository.config))
    progress = Warnings()
    for number in counting.changing:
        faulty = FaultyStore(repository.objects.store, PermissionDenied("x", "read only"), fail_at=number)
        assert not run(Repository(faulty, repository.config), progress=progress)[0].damage
    assert any("not recorded" in message for message in progress.messages)


def test_packs_that_are_gone_are_forgotten_and_times_verify_nothing() -> None:
    repository = make_many_backups(2)
    store = repository.objects.store
    assert isinstance(store, MemoryStore)
    gone = np.full((1, 32), 0xAB, np.uint8)
    store.objects[VERIFIED] = build_verified(VerifiedObject(gone, np.array([5], np.uint64)))
    report = run(repository, 1)
    assert parse_verified(store.objects[VERIFIED]).find(gone).tolist() == [-1]
    assert report.verified_share.run_percent > 0


class FlickeringStore(MemoryStore):
    """Gives wrong bytes of a pack every second time."""

    is_on = False

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        data = super().get_range(name, offset, length)
        self.is_on = not self.is_on
        return data[:-1] + bytes([data[-1] ^ 1]) if self.is_on else data


def test_what_reads_right_the_second_time_is_no_damage() -> None:
    repository = make_many_backups(2)
    flickering = FlickeringStore()
    flickering.objects = repository.objects.store.objects  # type: ignore[attr-defined]
    report = run(Repository(flickering, repository.config))
    assert not any(each.damage for each in report)
