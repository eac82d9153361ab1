# SPDX-License-Identifier: Apache-2.0
"""Runs moved from one numbering to another, and cut: what each block and each slot means stays the same."""

from __future__ import annotations

import random

import numpy as np
import pytest

from deltaimg import memory
from deltaimg.arrays import FIRST_SLOT, RUN, Runs
from deltaimg.errors import MemoryLimitReached
from deltaimg.repo import numbering
from deltaimg.repo.numbering import RecordNumbering, list_named_slots, renumber_runs


class Numbers(RecordNumbering):
    """Records of these numbers of slots, in order."""

    def __init__(self, counts: list[int]) -> None:
        super().__init__()
        self._append_numbers(np.zeros((len(counts), 16), np.uint8), np.array(counts, np.int64))


def draw_runs(chance: random.Random, slot_count: int) -> Runs:
    """Return runs of data, holes and zeros, some of which touch, and of which some name the same slots."""
    runs, block = [], chance.randrange(3)
    for _ in range(chance.randint(0, 12)):
        if chance.random() < 0.7:
            start = chance.randrange(slot_count)
            runs.append((block, chance.randint(1, slot_count - start), FIRST_SLOT + start))
        else:
            runs.append((block, chance.randint(1, 5), chance.randrange(2)))
        block += runs[-1][1] + chance.randrange(3)
    return np.array(runs, RUN)


def expand(runs: Runs) -> dict[int, int]:
    """Return the slot of each block."""
    return {
        block + i: slot + (i if slot >= FIRST_SLOT else 0) for block, count, slot in runs.tolist() for i in range(count)
    }


@pytest.mark.parametrize("piece_runs", [1, 3, 1 << 16])
def test_renumbering_and_cutting_agree_with_dictionaries(
    seed: int, piece_runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numbering, "_PIECE_RUNS", piece_runs)
    chance = random.Random(seed)
    for _ in range(150):
        counts = [chance.randint(1, 6) for _ in range(chance.randint(1, 8))]
        numbers = Numbers(counts)
        old = numbers.first_slots
        # Of neighbours some stay neighbours in the new numbering, and some are numbered apart.
        order = sorted(
            range(len(counts)), key=lambda record: (record // 3 % 2, record) if chance.random() < 0.8 else (2, 0)
        )
        new, place = np.zeros(len(counts), np.int64), chance.randint(2, 100)
        for record in order:
            new[record] = place
            place += counts[record] + chance.randrange(2)
        translation = {int(old[r]) + i: int(new[r]) + i for r in range(len(counts)) for i in range(counts[r])}
        runs = draw_runs(chance, sum(counts))
        moved = renumber_runs(runs, old, numbers.slot_counts, new, "x")
        assert expand(moved) == {block: translation.get(slot, slot) for block, slot in expand(runs).items()}
        cut = numbers.cut_at_records(runs, "x")
        assert expand(cut) == expand(runs)
        for _, count, slot in cut[cut["slot"] >= FIRST_SLOT].tolist():
            assert numbers.records_of(np.array([slot]))[0] == numbers.records_of(np.array([slot + count - 1]))[0]
        named: list[int] = []
        for records, firsts, lengths in list_named_slots(runs, old, numbers.slot_counts):
            for record, first, length in zip(records.tolist(), firsts.tolist(), lengths.tolist(), strict=True):
                assert 0 <= first < first + length <= counts[record]
                named += range(int(old[record]) + first, int(old[record]) + first + length)
        assert sorted(named) == sorted({slot for slot in expand(runs).values() if slot >= FIRST_SLOT})


def test_records_that_stay_neighbours_are_not_cut_apart() -> None:
    numbers = Numbers([1] * 1000)
    runs = np.array([(0, 1000, FIRST_SLOT)], RUN)
    assert renumber_runs(runs, numbers.first_slots, numbers.slot_counts, numbers.first_slots + 50, "x").tolist() == [
        (0, 1000, FIRST_SLOT + 50)
    ]
    assert len(numbers.cut_at_records(runs, "x")) == 1000


def test_more_pieces_than_there_may_be_are_refused_before_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(memory.SETTING, "10M")
    numbers = Numbers([1] * 2000)
    runs = np.zeros(2000, RUN)
    runs["first_block"], runs["count"], runs["slot"] = 2000 * np.arange(2000), 2000, FIRST_SLOT
    with pytest.raises(MemoryLimitReached, match=r"^maps/x: "):
        numbers.cut_at_records(runs, "maps/x")
    with pytest.raises(MemoryLimitReached, match=r"^maps/x: "):
        renumber_runs(runs, numbers.first_slots, numbers.slot_counts, numbers.first_slots[::-1].copy(), "maps/x")
    assert (
        sum(len(records) for records, _, _ in list_named_slots(runs, numbers.first_slots, numbers.slot_counts)) == 2000
    )
