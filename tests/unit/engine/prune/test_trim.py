# SPDX-License-Identifier: Apache-2.0
"""Trim: what is left of a repository after forgetting is what a fresh one of the nights that are kept would take."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from deltaimg.engine.prune.plan import PruneOptions
from deltaimg.engine.prune.run import prune
from deltaimg.format.manifest import Manifest
from deltaimg.repo.index import load_index
from deltaimg.repo.lock import ImageLock
from deltaimg.repo.repository import Repository
from tests.support.clock import START, FixedClock
from tests.support.images import SyntheticImage, make_incompressible_image
from tests.support.repositories import (
    Warnings,
    assert_restores,
    back_up_image,
    count_stored_bytes,
    make_repository,
)
from tests.support.retention import keep_only, list_manifests

PAGE = 16384
PAGES = 128
NIGHTS = 12


def make_nights(folder: Path) -> tuple[Repository, list[tuple[Manifest, SyntheticImage]]]:
    """Back up a database of pages that do not compress, of which rows change every night, and so deltas stand on deltas."""
    repository, image, chance = make_repository(), make_incompressible_image(PAGE * PAGES, seed=1), random.Random(3)
    nights = []
    for _ in range(NIGHTS):
        nights.append((back_up_image(repository, image, cache_folder=str(folder)), image.copy()))
        for page in chance.sample(range(PAGES), 25):
            image.write(page * PAGE + chance.randrange(PAGE - 100), chance.randbytes(100))
    return repository, nights


def check_all(repository: Repository, nights: list[tuple[Manifest, SyntheticImage]]) -> None:
    stand = {manifest.id: manifest for manifest in list_manifests(repository)}
    for manifest, image in nights:
        assert_restores(repository, stand[manifest.id], bytes(image.content))


@pytest.mark.parametrize("kept", [(0, 11), (11,), (0, 4, 8, 11)], ids=str)
def test_forgetting_and_pruning_leaves_what_a_fresh_repository_takes(tmp_path: Path, kept: tuple[int, ...]) -> None:
    repository, nights = make_nights(tmp_path / "one")
    chosen = [nights[number] for number in kept]
    keep_only(repository, [manifest.id for manifest, _ in chosen])
    before = count_stored_bytes(repository)
    result = prune(repository, clock=FixedClock(), patience_s=0)
    assert before - count_stored_bytes(repository) == result.freed_bytes - result.written_bytes
    fresh = make_repository()
    for _, image in chosen:
        back_up_image(fresh, image, cache_folder=str(tmp_path / "two"))
    assert count_stored_bytes(repository) <= 1.05 * count_stored_bytes(fresh)
    check_all(repository, chosen)
    again = prune(repository, clock=FixedClock(), patience_s=0)
    assert again.plan.is_empty
    assert again.trim.is_empty


def test_the_roots_of_snapshots_stay_the_same_when_their_maps_are_told_of_new_records(tmp_path: Path) -> None:
    repository, nights = make_nights(tmp_path)
    keep_only(repository, [nights[-1][0].id])
    (before,) = list_manifests(repository)
    assert len(prune(repository, clock=FixedClock(), patience_s=0).trim.cut)
    (after,) = list_manifests(repository)
    assert after.map != before.map
    assert after.root_digest == before.root_digest


def test_the_night_after_a_trim_finds_its_base_and_what_it_holds(tmp_path: Path) -> None:
    repository, nights = make_nights(tmp_path)
    keep_only(repository, [nights[-1][0].id])
    prune(repository, clock=FixedClock(), patience_s=0)
    image = nights[-1][1].copy()
    image.write(5000, b"the next night")
    image.move(0, PAGE * (PAGES - 1), PAGE)
    manifest = back_up_image(repository, image, cache_folder=str(tmp_path))
    assert manifest.base == nights[-1][0].id
    assert manifest.statistics.new_bytes <= 2 * 4096
    check_all(repository, [nights[-1], (manifest, image)])


def test_what_is_being_backed_up_is_trimmed_another_time(tmp_path: Path) -> None:
    repository, nights = make_nights(tmp_path)
    keep_only(repository, [nights[-1][0].id])
    (before,) = list_manifests(repository)
    warnings = Warnings()
    with ImageLock(repository, "vm1", "backup", START):
        prune(repository, clock=FixedClock(), patience_s=0, progress=warnings)
        assert list_manifests(repository) == [before]
        check_all(repository, nights[-1:])
    assert "stays whole" in warnings.messages[0]
    prune(repository, clock=FixedClock(), patience_s=0)
    prune(repository, clock=FixedClock(), patience_s=0)
    entries = load_index(repository).entries
    assert int(entries["slots"].sum()) == PAGE * PAGES // 4096
    check_all(repository, nights[-1:])


def test_nothing_is_trimmed_where_nothing_may_be_written(tmp_path: Path) -> None:
    repository, nights = make_nights(tmp_path)
    keep_only(repository, [nights[-1][0].id])
    result = prune(repository, PruneOptions(max_repack_bytes=0), clock=FixedClock(), patience_s=0)
    assert result.trim.is_empty
    assert not result.plan.repacked_packs
    check_all(repository, nights[-1:])
