# SPDX-License-Identifier: Apache-2.0
"""Expanded records are read back block by block, and a reused place is reported."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from deltaimg.engine.backup.delta_sources.expanded_records import ExpandedRecords

BLOCK, RECORD = 4096, 4


def make_content(seed: int, blocks: int = RECORD) -> bytes:
    return np.random.default_rng(seed).bytes(blocks * BLOCK)


def read(kept: ExpandedRecords, *wanted: tuple[int, int]) -> dict[tuple[int, int], bytes]:
    """Read blocks, each a record's number and a block's within it."""
    records, within = np.array(wanted, np.int64).reshape(-1, 2).T
    blocks = np.zeros((len(wanted) + 1, BLOCK), np.uint8)
    numbers = kept.read(records, within, np.arange(len(wanted)) + 1, blocks)
    return {wanted[number]: blocks[number + 1].tobytes() for number in numbers.tolist()}


def test_blocks_of_several_records_are_read_together(tmp_path: Path) -> None:
    kept = ExpandedRecords(str(tmp_path / "new"), BLOCK, RECORD)
    contents = {record: make_content(record) for record in (7, 2)}
    for record, content in contents.items():
        kept.put(record, memoryview(content))
    found = read(kept, (2, 3), (5, 0), (7, 0), (7, 1), (100, 0))
    assert found == {
        (record, block): contents[record][block * BLOCK : (block + 1) * BLOCK]
        for record, block in ((2, 3), (7, 0), (7, 1))
    }
    assert os.listdir(tmp_path / "new") == []
    kept.close()
    assert read(kept, (2, 3)) == {}


def test_the_oldest_goes_where_the_budget_ends() -> None:
    kept = ExpandedRecords(None, BLOCK, RECORD, budget_bytes=2 * RECORD * BLOCK)
    for record in range(3):
        kept.put(record, memoryview(make_content(record)))
    assert set(read(kept, (0, 0), (1, 0), (2, 0))) == {(1, 0), (2, 0)}
    kept.close()


def test_what_two_threads_expand_takes_one_place() -> None:
    kept = ExpandedRecords(None, BLOCK, RECORD, budget_bytes=2 * RECORD * BLOCK)
    for record in (0, 1, 1):
        kept.put(record, memoryview(make_content(record)))
    assert set(read(kept, (0, 0), (1, 0))) == {(0, 0), (1, 0)}
    kept.close()


def test_what_is_too_long_is_not_kept_and_what_is_short_is() -> None:
    kept = ExpandedRecords(None, BLOCK, RECORD)
    kept.put(0, memoryview(make_content(0, RECORD + 1)))
    kept.put(1, memoryview(make_content(1, 1)))
    assert read(kept, (0, 0), (1, 0)) == {(1, 0): make_content(1, 1)}
    kept.close()


@pytest.mark.parametrize("budget", [0, RECORD * BLOCK - 1])
def test_no_budget_keeps_nothing(budget: int) -> None:
    kept = ExpandedRecords(None, BLOCK, RECORD, budget_bytes=budget)
    kept.put(0, memoryview(make_content(0)))
    assert read(kept, (0, 0)) == {}
    kept.close()


def test_a_folder_that_cannot_be_made_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    kept = ExpandedRecords(str(tmp_path / "file" / "below"), BLOCK, RECORD)
    kept.put(0, memoryview(make_content(0)))
    assert read(kept, (0, 0)) == {}
    kept.close()
