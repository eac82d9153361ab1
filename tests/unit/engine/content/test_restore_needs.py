# SPDX-License-Identifier: Apache-2.0
"""What a restore decodes, kept up to date block by block, is what counting from the start gives."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np

from deltaimg.arrays import FIRST_SLOT, Runs, runs_from_blocks
from deltaimg.engine.content.resolved import load_resolved
from deltaimg.engine.content.restore_needs import RestoreNeeds
from deltaimg.ids import RecordNumbers
from deltaimg.kernels import overlay_runs
from deltaimg.repo.index import load_index
from deltaimg.repo.repository import Repository
from deltaimg.repo.slots import SlotTable
from tests.support.images import make_incompressible_image
from tests.support.repositories import back_up_image, make_repository

PAGE = 16384
PAGES = 256


def make_deep_chain(folder: Path) -> tuple[Repository, SlotTable, Runs]:
    """Return a repository with deltas on deltas, and its newest snapshot's map; the table has all of its records."""
    repository, image, chance = make_repository(), make_incompressible_image(PAGE * PAGES, seed=1), random.Random(2)
    for _ in range(6):
        manifest = back_up_image(repository, image, cache_folder=str(folder), max_read_amplification=100.0)
        for page in chance.sample(range(PAGES), 40):
            image.write(page * PAGE + chance.randrange(PAGE - 100), chance.randbytes(100))
    table = SlotTable(repository, load_index(repository))
    runs = load_resolved(repository, manifest, table).map.runs
    table.add_sources(table.add_entries(np.arange(len(table.index))))
    return repository, table, runs


def count_directly(table: SlotTable, runs: Runs, new_sources: list[np.ndarray], new_blocks: int) -> int:
    """Return how many blocks a restore of `runs` decodes, counted by following every link."""
    used = table.used_records(runs[(runs["slot"] >= FIRST_SLOT) & (runs["slot"] < table.slot_count)])
    wanted = np.unique(np.concatenate([used, *(each[each < table.record_count] for each in new_sources)]))
    needed = table.add_sources(RecordNumbers(wanted.astype(np.int64)))
    return int(table.slot_counts[needed].sum()) + new_blocks


def test_placing_blocks_counts_as_the_whole_map_does(tmp_path: Path) -> None:
    _, table, base = make_deep_chain(tmp_path)
    assert table.index.links.depths.max() > 2
    needs, chance = RestoreNeeds(table, base), np.random.default_rng(3)
    assert needs.decoded_blocks == count_directly(table, base, [], 0)
    assert needs.data_blocks == PAGE * PAGES // 4096
    runs, next_slot, sources = base, table.slot_count, []
    untouched = np.arange(needs.data_blocks)
    for _ in range(6):
        blocks = np.sort(chance.choice(untouched, 100, replace=False)).astype(np.uint64)
        untouched = np.setdiff1d(untouched, blocks)
        slots = np.arange(next_slot, next_slot + 100, dtype=np.uint32)
        known = chance.random(100) < 0.2
        slots[known] = chance.integers(FIRST_SLOT, table.slot_count, int(known.sum()))
        next_slot += 100
        sources.append(np.sort(chance.choice(table.record_count + len(sources), 3, replace=False)))
        is_new = slots >= table.slot_count
        needs.place(blocks, slots, int(is_new.sum()))
        needs.add(100, sources[-1])
        runs = overlay_runs(runs, runs_from_blocks(blocks, slots))
        assert needs.decoded_blocks == count_directly(table, runs, sources, 100 * len(sources))
    incremental = needs.decoded_blocks
    needs.settle(runs)
    assert needs.decoded_blocks == incremental
    needs.correct(2, np.empty(0, np.int64))
    sources[2] = np.empty(0, np.int64)
    assert needs.decoded_blocks == count_directly(table, runs, sources, 600)


def test_records_that_are_dropped_take_with_them_what_only_they_need(tmp_path: Path) -> None:
    _, table, base = make_deep_chain(tmp_path)
    needs = RestoreNeeds(table, base)
    other = needs.copy()
    records = RecordNumbers(np.flatnonzero(needs.direct))
    for record in records.tolist():
        needs.drop(RecordNumbers(np.array([record])))
    assert needs.decoded_blocks == 0
    assert not needs.is_needed.any()
    assert other.decoded_blocks == count_directly(table, base, [], 0)
