# SPDX-License-Identifier: Apache-2.0
"""Backups, pins and forgetting in any order: what is left is the same as ever, and gives back every byte."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from deltaimg.engine.content.snapshot import SnapshotContent
from deltaimg.engine.restore.verify import verify
from deltaimg.engine.retention.annotate import set_pin
from deltaimg.errors import LastSnapshot, SnapshotPinned
from deltaimg.repo.index import load_index
from deltaimg.repo.repository import SnapshotRef
from deltaimg.repo.snapshots import load_snapshots
from tests.support.clock import FixedClock
from tests.support.forgetting import Night, forget_ids
from tests.support.images import PAGE, SyntheticImage, edit_at_random
from tests.support.repositories import assert_restores, back_up_image, make_repository

MAX_BYTES = 60 * PAGE


class ForgettingMachine(RuleBasedStateMachine):
    """One image is edited, backed up, forgotten from; `nights` has what is there, oldest first."""

    @initialize(size=st.integers(1, MAX_BYTES), seed=st.integers(0, 99))
    def start(self, size: int, seed: int) -> None:
        self.repository = make_repository()
        self.image = SyntheticImage(size, seed)
        self.image.write_random(0, size // 2)
        self.nights: list[Night] = []
        self.pins: dict[str, str | None] = {}
        self.clock = FixedClock()

    @rule(edits=st.integers(0, 4))
    def back_up(self, edits: int) -> None:
        edit_at_random(self.image, edits)
        self.nights.append(
            Night(
                back_up_image(self.repository, self.image, clock=self.clock, allow_shrink=True, workers=1),
                bytes(self.image.content),
            )
        )

    @rule(size=st.integers(1, MAX_BYTES))
    def resize(self, size: int) -> None:
        self.image.resize(size)

    @precondition(lambda self: self.nights)
    @rule(data=st.data(), is_forced=st.booleans())
    def forget_some(self, data: st.DataObject, is_forced: bool) -> None:
        ids = data.draw(st.sets(st.sampled_from([night.id for night in self.nights]), min_size=1))
        before = [self.repository.load_manifest(ref) for ref in self.repository.list_snapshots()]
        try:
            forget_ids(self.repository, ids, is_forced=is_forced)
        except LastSnapshot:
            assert len(ids) == len(self.nights)
            assert not is_forced
        except SnapshotPinned:
            assert [self.repository.load_manifest(ref) for ref in self.repository.list_snapshots()] == before
        else:
            assert not any(self.pins.get(night.id) is not None for night in self.nights if night.id in ids)
            self.nights = [night for night in self.nights if night.id not in ids]

    @precondition(lambda self: self.nights)
    @rule(data=st.data(), reason=st.sampled_from([None, "", "why"]))
    def pin_one(self, data: st.DataObject, reason: str | None) -> None:
        place = data.draw(st.integers(0, len(self.nights) - 1))
        night = self.nights[place]
        assert set_pin(self.repository, ref_of(night), reason, clock=self.clock).pin_reason == reason
        self.pins[night.id] = reason

    @precondition(lambda self: self.nights)
    @rule(data=st.data())
    def restore_one(self, data: st.DataObject) -> None:
        night = data.draw(st.sampled_from(self.nights))
        assert_restores(self.repository, self.repository.load_manifest(ref_of(night)), night.content)

    @invariant()
    def all_that_was_not_forgotten_is_the_same(self) -> None:
        if not hasattr(self, "repository"):
            return
        snapshots = list(load_snapshots(self.repository))
        assert [each.manifest for each in snapshots] == [night.manifest for night in self.nights]
        assert [each.pin_reason for each in snapshots] == [self.pins.get(night.id) for night in self.nights]

    def teardown(self) -> None:
        if hasattr(self, "repository"):
            reports = verify(self.repository, self.repository.list_snapshots(), workers=1)
            assert not any(report.damage for report in reports)
            for night in self.nights:
                content = SnapshotContent(
                    self.repository, self.repository.load_manifest(ref_of(night)), load_index(self.repository)
                )
                assert content.make_reader().read(0, len(night.content)) == night.content


def ref_of(night: Night) -> SnapshotRef:
    return SnapshotRef(night.manifest.image, night.manifest.time, night.id)


@pytest.mark.parametrize("examples", [15, pytest.param(1000, marks=pytest.mark.long)])
def test_forgetting_in_any_order_changes_nothing_else(examples: int) -> None:
    run_state_machine_as_test(
        ForgettingMachine,
        settings=settings(
            max_examples=examples, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
