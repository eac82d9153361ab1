# SPDX-License-Identifier: Apache-2.0
"""The order of a walk: nothing before what it needs, and no block in a place that another one still has."""

from __future__ import annotations

import numpy as np
import pytest

from deltaimg.arrays import expand_ranges
from deltaimg.engine.content import walk_plan
from deltaimg.engine.content.snapshot import SnapshotContent
from deltaimg.engine.content.walk_plan import WalkPlan, plan_walk
from deltaimg.repo.index import load_index
from deltaimg.store.memory import MemoryStore
from tests.support.chains import PAGE, make_chain
from tests.support.clock import FixedClock
from tests.support.images import make_incompressible_image
from tests.support.repositories import back_up_image, make_repository

PAGES = 3000
REGION_BYTES = (None, 1, 4 * PAGE, 64 * PAGE, 1 << 40)


@pytest.fixture(autouse=True)
def no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk_plan, "page_cache_bytes", lambda: 0)


@pytest.fixture(scope="module")
def content() -> SnapshotContent:
    """A snapshot of an image in which every third page changes each day, in several records."""
    clock, image = FixedClock(), make_incompressible_image(PAGES * PAGE, seed=5)
    repository = make_repository(MemoryStore())
    manifest = back_up_image(repository, image, clock=clock)
    for day in range(4):
        for page in range(day % 3, PAGES, 3):
            image.write(page * PAGE + 64 * day, b"changed!")
        clock.advance(days=1)
        manifest = back_up_image(repository, image, clock=clock)
    opened = SnapshotContent(repository, manifest, load_index(repository))
    assert opened.table.depths_of(opened.closure).max() > 1
    return opened


def plan(content: SnapshotContent, region_source_bytes: int | None) -> WalkPlan:
    return plan_walk(content.table, content.closure, PAGE, region_source_bytes=region_source_bytes)


def list_steps(found: WalkPlan) -> list[np.ndarray]:
    return [np.concatenate([group.records for group in step]) for step in found.steps]


@pytest.mark.parametrize("region_source_bytes", REGION_BYTES)
def test_each_step_needs_those_before_it_only(content: SnapshotContent, region_source_bytes: int | None) -> None:
    done: set[int] = set()
    for records in list_steps(plan(content, region_source_bytes)):
        assert set(content.table.source_records(records)[0].tolist()) <= done
        done |= set(records.tolist())
    assert done == set(content.closure.tolist())


@pytest.mark.parametrize("region_source_bytes", REGION_BYTES)
def test_a_kept_block_is_in_its_place_until_the_last_step_that_needs_it(
    content: SnapshotContent, region_source_bytes: int | None
) -> None:
    table, found = content.table, plan(content, region_source_bytes)
    place_of = dict(zip(found.kept.slots.tolist(), found.kept.places.tolist(), strict=True))
    in_place: dict[int, int] = {}
    needed_count = 0
    for records in list_steps(found):
        # All of a step go on at once: what it needs is looked up before and after what it puts.
        needed = expand_ranges(*table.source_slots(records[table.are_deltas(records)])).tolist()
        assert all(in_place[place_of[slot]] == slot for slot in needed)
        for first, count in zip(table.first_slots[records].tolist(), table.slot_counts[records].tolist(), strict=True):
            for slot in range(first, first + count):
                if slot in place_of:
                    in_place[place_of[slot]] = slot
        assert all(in_place[place_of[slot]] == slot for slot in needed)
        needed_count += len(needed)
    assert needed_count > 0
    assert max(in_place) < found.kept.place_count <= len(found.kept.slots)


def test_the_more_regions_the_less_is_kept_at_once(content: SnapshotContent) -> None:
    counts = [plan(content, each).kept.place_count for each in (1, 64 * PAGE, 1 << 40, None)]
    assert counts == sorted(counts)
    assert counts[0] < counts[2] / 2
    assert counts[3] == len(plan(content, None).kept.slots)


def test_what_memory_holds_is_no_more_than_one_region(
    content: SnapshotContent, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept_bytes = len(plan(content, 1).kept.slots) * PAGE
    in_regions, by_depth = len(plan(content, 1).steps), len(plan(content, None).steps)
    for free_bytes, placed_bytes, steps in (
        (2 * kept_bytes, 0, by_depth),
        (2 * kept_bytes - 2, 0, in_regions),
        (4 * kept_bytes, kept_bytes + 1, in_regions),
        (4 * kept_bytes, kept_bytes, by_depth),
    ):
        monkeypatch.setattr(walk_plan, "page_cache_bytes", lambda free_bytes=free_bytes: free_bytes)
        found = plan_walk(content.table, content.closure, PAGE, region_source_bytes=1, placed_bytes=placed_bytes)
        assert len(found.steps) == steps


def test_a_walk_in_many_regions_is_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    repository, manifest, image = make_chain(snapshots=8, pages=400)
    opened = SnapshotContent(repository, manifest, load_index(repository))
    monkeypatch.setattr("deltaimg.engine.content.snapshot.REGION_SOURCE_BYTES", 1)
    restored = bytearray(len(image))

    def place(ranges: np.ndarray, data: memoryview) -> None:
        for offset, length, start in ranges.tolist():
            restored[offset : offset + length] = data[start : start + length]

    def read_back(ranges: np.ndarray, out: memoryview) -> None:
        for offset, length, start in ranges.tolist():
            out[start : start + length] = restored[offset : offset + length]

    found = opened.plan(can_read_back=True)
    assert len(found.steps) > len(opened.plan(in_few_steps=True).steps)
    assert len(list(opened.walk(found, place, read_back=read_back, keep_going=False, workers=3))) > 0
    assert bytes(restored) == image
