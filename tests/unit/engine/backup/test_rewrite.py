# SPDX-License-Identifier: Apache-2.0
"""Restores do not age: what a restore of the newest snapshot decodes stays within its bound, by storing blocks again."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from deltaimg.engine.content.snapshot import SnapshotContent
from deltaimg.engine.inspect.run import SnapshotLayout, inspect_snapshot
from deltaimg.format.manifest import Manifest
from deltaimg.repo.index import load_index
from deltaimg.repo.repository import Repository
from tests.support.clock import FixedClock
from tests.support.images import SyntheticImage, SyntheticSource, make_incompressible_image, make_rows
from tests.support.repositories import assert_restores, back_up_image, count_stored_bytes, make_repository

BLOCK = 4096
BLOCKS = 2048
BACKUPS = 40


def make_table() -> SyntheticImage:
    """Return an image of rows: regular content, which compresses, and of which deltas are small."""
    image = SyntheticImage(BLOCK * BLOCKS)
    image.write(0, make_rows(0, BLOCK * BLOCKS // 64))
    return image


def scatter(image: SyntheticImage, chance: random.Random, blocks: int = 120) -> None:
    """Replace most of each of some blocks by what nothing resembles, and a few bytes of each of some others."""
    for block in chance.sample(range(BLOCKS), blocks):
        image.write(block * BLOCK + 100, chance.randbytes(3000))
    for block in chance.sample(range(BLOCKS), blocks):
        image.write(block * BLOCK + chance.randrange(4000), chance.randbytes(16))


def look(repository: Repository, manifest: Manifest) -> SnapshotLayout:
    return inspect_snapshot(repository, manifest, load_index(repository))


def run_chain(
    folder: Path, backups: int = BACKUPS, **options: object
) -> tuple[Repository, list[tuple[Manifest, bytes]], list[float]]:
    """Back an image up again and again; return snapshots, their content, and the read amplification of each."""
    repository, image, chance, clock = make_repository(), make_table(), random.Random(3), FixedClock()
    states, found = [], []
    for _ in range(backups):
        manifest = back_up_image(repository, image, clock=clock, cache_folder=str(folder), **options)
        states.append((manifest, bytes(image.content)))
        found.append(look(repository, manifest).read_amplification)
        clock.advance(days=1)
        scatter(image, chance)
    return repository, states, found


@pytest.mark.native_speed
@pytest.mark.parametrize("delta", ["auto", "none"])
def test_forty_backups_stay_within_the_bound(tmp_path: Path, delta: str) -> None:
    _, _, free = run_chain(tmp_path / "free", delta=delta, max_read_amplification=1000.0)
    repository, states, bound = run_chain(
        tmp_path / "bound", delta=delta, max_read_amplification=1.5, max_rewrite_bytes=3 << 20
    )
    assert max(free) > 2
    assert max(bound) <= 1.5
    assert max(bound[-10:]) > 1.3, "no more is stored again than the bound asks for"
    for manifest, content in states[:: BACKUPS // 5]:
        assert_restores(repository, manifest, content)
    assert_restores(repository, *states[-1])


@pytest.mark.native_speed
def test_what_is_stored_again_is_reported_and_within_its_budget(tmp_path: Path) -> None:
    budget = 256 << 10
    repository, states, _ = run_chain(tmp_path, 20, max_read_amplification=1.5, max_rewrite_bytes=budget)
    rewritten = [manifest.statistics.rewritten_bytes for manifest, _ in states]
    assert 0 < max(rewritten) <= budget
    for manifest, _ in states:
        done = manifest.statistics
        assert done.rewritten_payload_bytes <= min(done.stored_bytes, 2 * done.rewritten_bytes)
        assert bool(done.rewritten_payload_bytes) == bool(done.rewritten_bytes)
    assert count_stored_bytes(repository) == sum(each.statistics.stored_bytes for each, _ in states) + _count_other(
        repository
    )


def _count_other(repository: Repository) -> int:
    """Return the size of what no backup of an image is charged for."""
    return sum(
        found.size_bytes
        for found in repository.objects.store.list("")
        if found.name.partition("/")[0] in ("config", "annotations", "locks")
    )


@pytest.mark.native_speed
def test_nothing_is_stored_again_without_a_budget_or_below_the_bound(tmp_path: Path) -> None:
    for folder, options in (
        ("none", {"max_read_amplification": 1.5, "max_rewrite_bytes": 0}),
        ("free", {"max_read_amplification": 1000.0}),
    ):
        _, states, _ = run_chain(tmp_path / folder, 8, **options)
        assert not any(manifest.statistics.rewritten_bytes for manifest, _ in states)


@pytest.mark.native_speed
def test_a_block_that_changes_after_the_scan_is_not_stored_again(tmp_path: Path) -> None:
    """The map goes on referring to what was scanned."""
    repository, image, chance, clock = make_repository(), make_table(), random.Random(5), FixedClock()
    options = {"cache_folder": str(tmp_path), "max_read_amplification": 1000.0}
    for _ in range(8):
        back_up_image(repository, image, clock=clock, **options)
        clock.advance(days=1)
        scatter(image, chance)
    content, source = bytes(image.content), SyntheticSource(image)

    def read_other_bytes(ranges: np.ndarray, out: memoryview) -> None:
        for _, length, start in ranges.tolist():
            out[start : start + length] = chance.randbytes(length)

    source.reread = read_other_bytes  # type: ignore[method-assign]
    from deltaimg.engine.backup.run import back_up
    from deltaimg.options.backup import BackupOptions

    manifest = back_up(
        repository,
        source,
        "vm1",
        BackupOptions(max_read_amplification=1.2, allow_live=True, workers=2),
        clock=clock,
    )
    assert manifest.statistics.rewritten_bytes == 0
    assert_restores(repository, manifest, content)


def test_blocks_that_occur_often_are_stored_again_once(tmp_path: Path) -> None:
    repository, clock, chance = make_repository(), FixedClock(), random.Random(6)
    image = make_incompressible_image(BLOCK * 512, seed=1)
    image.write(BLOCK * 256, bytes(image.content[: BLOCK * 256]))
    back_up_image(repository, image, clock=clock, cache_folder=str(tmp_path))
    for block in range(256):
        if block % 4:
            image.write(block * BLOCK, chance.randbytes(BLOCK))
            image.write((256 + block) * BLOCK, chance.randbytes(BLOCK))
    clock.advance(days=1)
    manifest = back_up_image(
        repository,
        image,
        clock=clock,
        cache_folder=str(tmp_path),
        max_read_amplification=1.0,
        max_rewrite_bytes=1 << 20,
    )
    assert manifest.statistics.rewritten_bytes == 64 * BLOCK
    assert_restores(repository, manifest, bytes(image.content))
    used = SnapshotContent(repository, manifest, load_index(repository)).records
    assert len(used) == len(set(used.tolist()))
    assert look(repository, manifest).read_amplification <= 1


@pytest.mark.native_speed
def test_a_stream_is_stored_with_nothing_stored_again(tmp_path: Path) -> None:
    from deltaimg.engine.backup.run import back_up
    from deltaimg.options.backup import BackupOptions

    class Stream(SyntheticSource):
        is_sequential = True

        def __init__(self, image: SyntheticImage) -> None:
            super().__init__(image)
            self.size_bytes = None

        def read_into(self, offset: int, buffer: memoryview) -> int:
            got = super().read_into(offset, buffer)
            if got < len(buffer):
                self.size_bytes = offset + got
            return got

    repository, image, chance, clock = make_repository(), make_table(), random.Random(7), FixedClock()
    for _ in range(6):
        manifest = back_up(
            repository,
            Stream(image),
            "vm1",
            BackupOptions(cache_folder=str(tmp_path), max_read_amplification=1.0, workers=2),
            clock=clock,
        )
        content = bytes(image.content)
        clock.advance(days=1)
        scatter(image, chance)
    assert manifest.statistics.rewritten_bytes == 0
    assert_restores(repository, manifest, content)
