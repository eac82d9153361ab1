# SPDX-License-Identifier: Apache-2.0
"""Backups of nearly unchanged images: the same snapshots, without the tables that other backups need."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from deltaimg.delta.match import find_candidates
from deltaimg.engine.backup import changes
from deltaimg.repo.index import load_index
from tests.support.images import SyntheticImage, make_incompressible_image
from tests.support.repositories import assert_restores, back_up_image, make_repository

BLOCK = 4096
BLOCKS = 512
MOST = changes.FEW_BYTES // BLOCK


@pytest.fixture(autouse=True)
def _small_images_have_few_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "FEW_SHARE", 1)


def make_image(seed: int = 1) -> SyntheticImage:
    return make_incompressible_image(BLOCK * BLOCKS, seed=seed)


def change_blocks(image: SyntheticImage, chance: random.Random, count: int) -> list[int]:
    """Write some bytes into each of `count` blocks; return their numbers."""
    chosen = chance.sample(range(BLOCKS), count)
    for block in chosen:
        image.write(block * BLOCK + chance.randrange(BLOCK - 16), chance.randbytes(16))
    return chosen


@pytest.mark.parametrize("count", [1, 3, MOST, MOST + 1, 2 * MOST])
def test_few_and_many_changed_blocks_restore(count: int) -> None:
    repository, image, chance = make_repository(), make_image(), random.Random(count)
    first = back_up_image(repository, image)
    before = bytes(image.content)
    change_blocks(image, chance, count)
    manifest = back_up_image(repository, image)
    assert manifest.statistics.new_bytes == count * BLOCK
    assert_restores(repository, manifest, bytes(image.content))
    assert_restores(repository, first, before)


def test_few_blocks_are_stored_without_sources_and_leave_the_anchors_alone(tmp_path: Path) -> None:
    repository, image, chance = make_repository(), make_image(), random.Random(2)
    back_up_image(repository, image, cache_folder=str(tmp_path))
    (anchors,) = tmp_path.rglob("*.anchors")
    written = anchors.stat().st_mtime_ns
    change_blocks(image, chance, MOST)
    back_up_image(repository, image, cache_folder=str(tmp_path))
    assert anchors.stat().st_mtime_ns == written
    assert not load_index(repository).links.counts.any()


def test_the_backup_after_one_of_an_unchanged_image_has_deltas_and_restores(tmp_path: Path) -> None:
    repository, image, chance = make_repository(), make_image(), random.Random(3)
    back_up_image(repository, image, cache_folder=str(tmp_path))
    change_blocks(image, chance, 8)
    back_up_image(repository, image, cache_folder=str(tmp_path))
    change_blocks(image, chance, 3 * MOST)
    manifest = back_up_image(repository, image, cache_folder=str(tmp_path))
    assert load_index(repository).links.counts.any()
    assert manifest.statistics.stored_bytes < manifest.statistics.new_bytes / 4
    assert_restores(repository, manifest, bytes(image.content))


def test_few_blocks_that_the_base_or_the_backup_itself_has_are_not_stored_again() -> None:
    repository, image, chance = make_repository(), make_image(), random.Random(4)
    back_up_image(repository, image)
    image.write(7 * BLOCK, bytes(image.content[100 * BLOCK : 103 * BLOCK]))
    new = chance.randbytes(BLOCK)
    image.write(20 * BLOCK, new)
    image.write(300 * BLOCK, new)
    manifest = back_up_image(repository, image)
    assert (manifest.statistics.new_bytes, manifest.statistics.referenced_bytes) == (BLOCK, 4 * BLOCK)
    assert_restores(repository, manifest, bytes(image.content))


def test_few_blocks_that_another_image_or_an_earlier_backup_has_are_not_stored_again() -> None:
    repository, image, other = make_repository(), make_image(), make_image(seed=9)
    back_up_image(repository, image, name="vm1")
    back_up_image(repository, other, name="vm2")
    old = bytes(image.content[: 2 * BLOCK])
    image.write(0, bytes(other.content[: 2 * BLOCK]))
    manifest = back_up_image(repository, image, name="vm1")
    assert (manifest.statistics.new_bytes, manifest.statistics.referenced_bytes) == (0, 2 * BLOCK)
    image.write(0, old)
    manifest = back_up_image(repository, image, name="vm1")
    assert (manifest.statistics.new_bytes, manifest.statistics.referenced_bytes) == (0, 2 * BLOCK)
    assert_restores(repository, manifest, bytes(image.content))


def test_a_forced_delta_is_made_for_a_single_block() -> None:
    repository, image, chance = make_repository(), make_image(), random.Random(5)
    back_up_image(repository, image, delta="zstd")
    change_blocks(image, chance, 1)
    manifest = back_up_image(repository, image, delta="zstd")
    assert load_index(repository).links.counts.any()
    assert_restores(repository, manifest, bytes(image.content))


def test_none_stores_few_blocks_too() -> None:
    repository, image, chance = make_repository(), make_image(), random.Random(6)
    back_up_image(repository, image, delta="none")
    change_blocks(image, chance, 5)
    manifest = back_up_image(repository, image, delta="none")
    assert_restores(repository, manifest, bytes(image.content))


def test_a_small_image_has_no_few_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "FEW_SHARE", 4096)
    repository, image, chance = make_repository(), make_image(), random.Random(7)
    back_up_image(repository, image)
    change_blocks(image, chance, 8)
    back_up_image(repository, image)
    assert load_index(repository).links.counts.any()


def test_candidates_are_all_that_are_wanted_and_few_others() -> None:
    chance = np.random.default_rng(1)
    known = chance.integers(0, 256, (100_000, 16), np.uint8)
    chosen = np.sort(chance.choice(len(known), 50, replace=False))
    found = find_candidates(known, np.concatenate((known[chosen], chance.integers(0, 256, (14, 16), np.uint8))))
    assert np.isin(chosen, found).all()
    assert len(found) < 100
    assert not len(find_candidates(known[:0], known[:3]))


@pytest.mark.parametrize(
    ("base_bytes", "few_bytes"),
    [
        (0, 0),
        (1 << 28, 1 << 16),
        (1 << 30, 1 << 18),
        (4 << 30, 1 << 18),
        (8 << 30, 1 << 19),
        (64 << 30, 4 << 20),
        (1 << 40, 4 << 20),
    ],
)
def test_what_is_few_grows_with_the_tables_that_it_spares(
    base_bytes: int, few_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "FEW_SHARE", 4096)
    assert changes.find_few_bytes(base_bytes) == few_bytes
