# SPDX-License-Identifier: Apache-2.0
"""A prune brings the newest snapshots of an aged repository within the bound on restore read amplification."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import numpy as np
import pytest

from deltaimg.engine.check.findings import Severity
from deltaimg.engine.check.run import check
from deltaimg.engine.inspect.run import inspect_snapshot
from deltaimg.engine.prune.run import PruneResult, plan_prune, prune
from deltaimg.format.manifest import Manifest
from deltaimg.options.prune import PruneOptions
from deltaimg.repo.index import load_index
from deltaimg.repo.repository import Repository
from tests.support.clock import FixedClock
from tests.support.images import SyntheticImage, make_rows
from tests.support.repositories import assert_restores, back_up_image, count_stored_bytes, make_repository
from tests.support.retention import keep_only

BLOCK = 4096
BLOCKS = 1024
State = tuple[Manifest, bytes]


def make_table() -> SyntheticImage:
    """Return an image of rows: regular content, which compresses, and of which deltas are small."""
    image = SyntheticImage(BLOCK * BLOCKS)
    image.write(0, make_rows(0, BLOCK * BLOCKS // 64))
    return image


def age(folder: Path, backups: int = 14, name: str = "vm1", repository: Repository | None = None) -> list[State]:
    """Back an image up again and again without a bound; return the snapshots and their content."""
    repository = repository or make_repository()
    image, chance, clock = make_table(), random.Random(3), FixedClock()
    states = []
    for _ in range(backups):
        manifest = back_up_image(
            repository, image, name, clock=clock, cache_folder=str(folder), max_read_amplification=1000.0
        )
        states.append((manifest, bytes(image.content)))
        clock.advance(days=1)
        for block in chance.sample(range(BLOCKS), 60):
            image.write(block * BLOCK + 100, chance.randbytes(1000))
        for block in chance.sample(range(BLOCKS), 60):
            image.write(block * BLOCK + chance.randrange(4000), chance.randbytes(16))
    return states


def measure(repository: Repository, manifest: Manifest) -> float:
    return inspect_snapshot(repository, manifest, load_index(repository)).read_amplification


def prune_now(repository: Repository, **options: object) -> PruneResult:
    return prune(repository, PruneOptions(**options), clock=FixedClock())  # type: ignore[arg-type]


def check_all(repository: Repository, states: list[State]) -> None:
    for manifest, content in states:
        assert_restores(repository, manifest, content)
    assert not check(repository, read_packs=True).of(Severity.ERROR)


@pytest.mark.parametrize("kept", [range(14), (0, 6, 13), (12, 13)], ids=["all", "some", "last"])
def test_the_newest_snapshot_comes_within_the_bound_and_all_restore(
    tmp_path: Path, kept: range | tuple[int, ...]
) -> None:
    repository = make_repository()
    states = age(tmp_path, repository=repository)
    chosen = [states[number] for number in kept]
    keep_only(repository, [manifest.id for manifest, _ in chosen])
    before, stored = measure(repository, states[-1][0]), count_stored_bytes(repository)
    assert before > 2
    result = prune_now(repository)
    assert measure(repository, states[-1][0]) <= 1.5
    assert len(result.plan.trim.splits.entries)
    assert count_stored_bytes(repository) < 1.5 * stored
    check_all(repository, chosen)


@pytest.mark.parametrize("kept", [range(14), (0, 6, 13)], ids=["all", "some"])
def test_a_second_prune_does_nothing(tmp_path: Path, kept: range | tuple[int, ...]) -> None:
    repository = make_repository()
    states = age(tmp_path, repository=repository)
    keep_only(repository, [states[number][0].id for number in kept])
    prune_now(repository)
    prune_now(repository)
    again = prune_now(repository)
    assert again.plan.is_empty
    assert measure(repository, states[-1][0]) <= 1.5


def test_prunes_within_a_budget_come_nearer_until_the_bound_is_reached(tmp_path: Path) -> None:
    repository = make_repository()
    states = age(tmp_path, repository=repository)
    budget, found = 512 << 10, [measure(repository, states[-1][0])]
    while found[-1] > 1.5 and len(found) < 16:
        result = prune_now(repository, max_repack_bytes=budget)
        assert result.written_bytes <= budget
        found.append(measure(repository, states[-1][0]))
    assert len(found) > 3
    assert all(after < before for before, after in itertools.pairwise(found))
    assert found[-1] <= 1.5
    check_all(repository, states)


def test_what_is_split_is_stored_once(tmp_path: Path) -> None:
    repository = make_repository()
    states = age(tmp_path, repository=repository)
    prune_now(repository)
    index = load_index(repository)
    ids, counts = np.unique(index.entries["id"], axis=0, return_counts=True)
    assert counts.max() == 2
    twice = index.list_copies()
    for first, second in twice:
        slots = index.cuts.count(np.array([first, second]))
        assert slots.sum() <= 1.3 * index.entries["slots"][first]
    assert len(ids) < len(index)
    check_all(repository, states)


def test_every_image_has_its_own_newest_snapshot(tmp_path: Path) -> None:
    repository = make_repository()
    first = age(tmp_path / "one", repository=repository)
    second = age(tmp_path / "two", 10, "vm2", repository)
    prune_now(repository)
    for states in (first, second):
        assert measure(repository, states[-1][0]) <= 1.5
        check_all(repository, states[-3:])


def test_the_next_backup_and_forgetting_go_on_from_there(tmp_path: Path) -> None:
    repository = make_repository()
    states = age(tmp_path, repository=repository)
    prune_now(repository)
    image = SyntheticImage(BLOCK * BLOCKS)
    image.write(0, states[-1][1])
    image.write(5 * BLOCK, b"changed" * 3000)
    manifest = back_up_image(repository, image, clock=FixedClock(), cache_folder=str(tmp_path))
    assert manifest.statistics.changed_bytes < 8 * BLOCK
    keep_only(repository, [states[-2][0].id, manifest.id])
    prune_now(repository, trim="full", max_unused_percent=0.0)
    check_all(repository, [states[-2], (manifest, bytes(image.content))])
    assert measure(repository, manifest) <= 1.5


@pytest.mark.parametrize("options", [{"trim": "none"}, {"max_repack_bytes": 0}, {"max_read_amplification": 1000.0}])
def test_nothing_is_split_where_that_is_not_wanted(tmp_path: Path, options: dict[str, object]) -> None:
    repository = make_repository()
    age(tmp_path, 8, repository=repository)
    plan = plan_prune(repository, PruneOptions(**options)).plan  # type: ignore[arg-type]
    assert not len(plan.trim.splits.entries)
