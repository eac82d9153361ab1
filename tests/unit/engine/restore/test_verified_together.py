# SPDX-License-Identifier: Apache-2.0
"""Snapshots that are verified together: what several need is expanded once, and each has its own result."""

from __future__ import annotations

import pytest

from deltaimg.engine.restore import verify as verify_module
from deltaimg.engine.restore.verify import VerifyReport, verify
from deltaimg.repo.index import load_index
from deltaimg.repo.repository import Repository, SnapshotRef
from deltaimg.store.memory import MemoryStore
from tests.support.clock import FixedClock
from tests.support.images import make_incompressible_image
from tests.support.repositories import back_up_image, make_repository
from tests.unit.engine.restore.test_progress import Recorded

PAGE = 4096
SNAPSHOTS = 7


@pytest.fixture
def chain() -> tuple[Repository, MemoryStore]:
    """Snapshots of an image, and of another one with blocks of another size, in turn."""
    store, clock = MemoryStore(), FixedClock()
    repository = make_repository(store)
    images = {
        "a": make_incompressible_image(600 * PAGE, seed=5),
        "b": make_incompressible_image(300 * PAGE, seed=6),
    }
    for day in range(SNAPSHOTS):
        for name, image in images.items():
            for page in range(day, len(image.content) // PAGE, 5):
                image.write(page * PAGE + 64 * day, b"changed!")
            back_up_image(repository, image, name=name, clock=clock, block_bytes=PAGE if name == "a" else 4 * PAGE)
        clock.advance(days=1)
    return repository, store


def count_expanded(repository: Repository) -> int:
    seen = Recorded()
    results = verify(repository, repository.list_snapshots(), progress=seen)
    assert len(results) == 2 * SNAPSHOTS
    assert not any(each.damage for each in results)
    assert all(each.records == each.records_total > 0 for each in results)
    assert [each.ref for each in results] == list(repository.list_snapshots())
    return sum(done for task, _, done in seen.stages if task.startswith("verifying"))


def test_what_several_snapshots_need_is_expanded_once(
    chain: tuple[Repository, MemoryStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    repository, _ = chain
    entries = load_index(repository).entries
    together = count_expanded(repository)
    assert together == sum(int(row["slots"]) << int(row["block_shift"]) for row in entries)
    monkeypatch.setattr(verify_module, "_BATCH_BYTES", 0)
    assert count_expanded(repository) > 1.5 * together


def list_damage(report: VerifyReport) -> dict[SnapshotRef, list[tuple[int, int]]]:
    return {each.ref: [(extent.start, extent.end) for extent in each.damage] for each in report if each.damage}


@pytest.mark.parametrize("batch_bytes", [0, 1 << 30])
def test_each_snapshot_has_the_damage_that_concerns_it(
    chain: tuple[Repository, MemoryStore], batch_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository, store = chain
    monkeypatch.setattr(verify_module, "_BATCH_BYTES", batch_bytes)
    pack = max((name for name in store.objects if name.startswith("packs/")), key=lambda name: len(store.objects[name]))
    store.objects[pack] = store.objects[pack][:-PAGE] + bytes(PAGE)
    report = verify(repository, repository.list_snapshots())
    # That of the record at the bottom of a chain, and its own.
    assert {extent.reason.count("(at byte ") for each in report for extent in each.damage} == {1, 2}
    together = list_damage(report)
    alone = {}
    for ref in repository.list_snapshots():
        alone |= list_damage(verify(repository, [ref]))
    assert together == alone
    assert 0 < len(together) <= SNAPSHOTS
