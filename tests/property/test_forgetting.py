# SPDX-License-Identifier: Apache-2.0
"""Backups, pins and forgetting in any order: the snapshots that are left are unchanged and restore byte for byte."""

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
from tests.support.history import KnownSnapshot, forget_ids
from tests.support.images import PAGE, SyntheticImage, edit_at_random
from tests.support.repositories import assert_restores, back_up_image, make_repository

MAX_BYTES = 60 * PAGE


class ForgettingMachine(RuleBasedStateMachine):
    """One image is edited, backed up, forgotten from; `snapshots` has what is there, oldest first."""

    @initialize(size=st.integers(1, MAX_BYTES), seed=st.integers(0, 99))
    def start(self, size: int, seed: int) -> None:
        self.repository = make_repository()
        self.image = SyntheticImage(size, seed)
        self.image.write_random(0, size // 2)
        self.snapshots: list[KnownSnapshot] = []
        self.pins: dict[str, str | None] = {}
        self.clock = FixedClock()

    @rule(edits=st.integers(0, 4))
    def back_up(self, edits: int) -> None:
        edit_at_random(self.image, edits)
        self.snapshots.append(
            KnownSnapshot(
                back_up_image(self.repository, self.image, clock=self.clock, allow_shrink=True, workers=1),
                bytes(self.image.content),
            )
        )

    @rule(size=st.integers(1, MAX_BYTES))
    def resize(self, size: int) -> None:
        self.image.resize(size)

    @precondition(lambda self: self.snapshots)
    @rule(data=st.data(), is_forced=st.booleans())
    def forget_some(self, data: st.DataObject, is_forced: bool) -> None:
        ids = data.draw(st.sets(st.sampled_from([snapshot.id for snapshot in self.snapshots]), min_size=1))
        before = [self.repository.load_manifest(ref) for ref in self.repository.list_snapshots()]
        try:
            forget_ids(self.repository, ids, is_forced=is_forced)
        except LastSnapshot:
            assert len(ids) == len(self.snapshots)
            assert not is_forced
        except SnapshotPinned:
            assert [self.repository.load_manifest(ref) for ref in self.repository.list_snapshots()] == before
        else:
            assert not any(self.pins.get(snapshot.id) is not None for snapshot in self.snapshots if snapshot.id in ids)
            self.snapshots = [snapshot for snapshot in self.snapshots if snapshot.id not in ids]

    @precondition(lambda self: self.snapshots)
    @rule(data=st.data(), reason=st.sampled_from([None, "", "why"]))
    def pin_one(self, data: st.DataObject, reason: str | None) -> None:
        place = data.draw(st.integers(0, len(self.snapshots) - 1))
        snapshot = self.snapshots[place]
        assert set_pin(self.repository, ref_of(snapshot), reason, clock=self.clock).pin_reason == reason
        self.pins[snapshot.id] = reason

    @precondition(lambda self: self.snapshots)
    @rule(data=st.data())
    def restore_one(self, data: st.DataObject) -> None:
        snapshot = data.draw(st.sampled_from(self.snapshots))
        assert_restores(self.repository, self.repository.load_manifest(ref_of(snapshot)), snapshot.content)

    @invariant()
    def all_that_was_not_forgotten_is_the_same(self) -> None:
        if not hasattr(self, "repository"):
            return
        found = list(load_snapshots(self.repository))
        assert [each.manifest for each in found] == [snapshot.manifest for snapshot in self.snapshots]
        assert [each.pin_reason for each in found] == [self.pins.get(snapshot.id) for snapshot in self.snapshots]

    def teardown(self) -> None:
        if hasattr(self, "repository"):
            reports = verify(self.repository, self.repository.list_snapshots(), workers=1)
            assert not any(report.damage for report in reports)
            for snapshot in self.snapshots:
                content = SnapshotContent(
                    self.repository, self.repository.load_manifest(ref_of(snapshot)), load_index(self.repository)
                )
                assert content.make_reader().read(0, len(snapshot.content)) == snapshot.content


def ref_of(snapshot: KnownSnapshot) -> SnapshotRef:
    return SnapshotRef(snapshot.manifest.image, snapshot.manifest.time, snapshot.id)


@pytest.mark.parametrize("examples", [15, pytest.param(1000, marks=pytest.mark.long)])
def test_forgetting_in_any_order_changes_nothing_else(examples: int) -> None:
    run_state_machine_as_test(
        ForgettingMachine,
        settings=settings(
            max_examples=examples, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
