# SPDX-License-Identifier: Apache-2.0
"""Blocks that change before every backup are stored in deep records of their own, and leave the others where they are."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from deltaimg.engine.backup.base import open_base
from deltaimg.engine.backup.block_order import BlockOrder
from deltaimg.engine.backup.changed_blocks import ChangedBlocks
from deltaimg.engine.content.snapshot import SnapshotContent
from deltaimg.engine.progress import NoProgress
from deltaimg.repo.index import load_index
from tests.support.images import SyntheticImage, make_incompressible_image
from tests.support.repositories import assert_restores, back_up_image, make_repository

BLOCK = 4096
RECORD = 128
HOT = 4 * RECORD
COLD = 8 * RECORD
BLOCKS = HOT + 4 * COLD


def touch(image: SyntheticImage, chance: random.Random, blocks: range) -> None:
    """Change a row in each of some blocks."""
    for block in blocks:
        image.write(block * BLOCK + chance.randrange(BLOCK - 100), chance.randbytes(100))


def interleave(first: int) -> range:
    """Every fourth block from `first`, so that hot and cold blocks are neighbours everywhere."""
    return range(first, BLOCKS, 4)


@pytest.mark.native_speed
def test_hot_blocks_take_no_others_to_the_bound(tmp_path: Path) -> None:
    """Before each backup a quarter of the blocks changes again, and an eighth of the others, for the first time."""
    repository, image = make_repository(), make_incompressible_image(BLOCK * BLOCKS, seed=1)
    chance = random.Random(2)
    back_up_image(repository, image, cache_folder=str(tmp_path))
    cold = [block for first in (1, 2, 3) for block in interleave(first)]
    chance.shuffle(cold)
    share = len(cold) // 6
    stored = []
    for number in range(6):
        touch(image, chance, interleave(0))
        touched = sorted(cold[number * share : (number + 1) * share])
        for block in touched:
            touch(image, chance, range(block, block + 1))
        manifest = back_up_image(repository, image, cache_folder=str(tmp_path), max_read_amplification=100)
        assert_restores(repository, manifest, bytes(image.content))
        stored.append(manifest.statistics.stored_bytes)
        depths = load_index(repository).links.depths
        content = SnapshotContent(repository, manifest, load_index(repository))
        slots = content.runs["slot"][np.searchsorted(content.runs["first_block"], touched, side="right") - 1]
        shallow = depths[content.table.entries[content.table.records_of(slots)]] <= 2
        assert shallow.mean() > 0.8, f"backup {number}"
    assert max(stored) < 2 * min(stored)


def test_every_block_leaves_once_and_with_its_own_bytes() -> None:
    repository, image, chance = make_repository(), make_incompressible_image(BLOCK * BLOCKS, seed=3), random.Random(4)
    for _ in range(3):
        back_up_image(repository, image)
        touch(image, chance, interleave(0))
    base = open_base(repository, repository.list_snapshots("vm1"), NoProgress())
    assert base.is_usable
    order = BlockOrder(base.table, base.runs, RECORD, BLOCK)
    content = memoryview(bytes(image.content))
    digests = np.arange(BLOCKS * 16, dtype=np.uint32).astype(np.uint8).reshape(-1, 16)
    found: dict[int, tuple[bytes, bytes]] = {}

    def keep(batch: ChangedBlocks) -> None:
        for index, block, digest in zip(batch.indexes.tolist(), batch.blocks.tolist(), batch.digests, strict=True):
            assert block not in found
            found[block] = bytes(batch.content[index * BLOCK : (index + 1) * BLOCK]), digest.tobytes()

    span = 1000
    for first in range(0, BLOCKS, span):
        count = min(span, BLOCKS - first)
        numbers = np.arange(count)
        part = content[first * BLOCK : (first + count) * BLOCK]
        blocks = (first + numbers).astype(np.uint64)
        for batch in order.add(ChangedBlocks(part, numbers.astype(np.uint32), blocks, digests[first : first + count])):
            keep(batch)
    for batch in order.drain():
        keep(batch)
    assert list(order.drain()) == []
    expected = {
        block: (bytes(content[block * BLOCK : (block + 1) * BLOCK]), digests[block].tobytes())
        for block in range(BLOCKS)
    }
    assert found == expected
