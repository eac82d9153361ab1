# SPDX-License-Identifier: Apache-2.0
"""Which slots a delta is encoded against: those with most votes, of the records with most votes."""

from __future__ import annotations

import random

import numpy as np
import pytest

from deltaimg.delta.sources import choose_slots


def choose(slots: list[int], votes: list[int], records: list[int], max_records: int, max_slots: int) -> list[int]:
    arrays = [np.array(each, np.int64) for each in (slots, votes, records)]
    return choose_slots(*arrays, max_records, max_slots).tolist()  # type: ignore[arg-type]


def test_all_are_taken_where_they_are_few() -> None:
    assert choose([5, 9, 12], [1, 1, 1], [0, 0, 7], 2, 3) == [5, 9, 12]


def test_records_with_few_votes_are_left_out_first() -> None:
    assert choose([1, 2, 3, 4], [9, 1, 5, 6], [0, 0, 1, 1], 1, 4) == [3, 4]


def test_of_equal_votes_the_first_ones_win() -> None:
    assert choose([1, 2, 3, 4], [2, 2, 2, 2], [0, 1, 2, 3], 2, 4) == [1, 2]
    assert choose([1, 2, 3, 4], [2, 2, 2, 2], [0, 0, 0, 0], 4, 2) == [1, 2]


def test_nothing_is_chosen_of_nothing() -> None:
    assert choose([], [], [], 4, 4) == []


@pytest.mark.parametrize("seed", range(30))
def test_the_choice_is_that_of_a_sort(seed: int) -> None:
    rng = random.Random(seed)
    count = rng.randrange(1, 60)
    slots = sorted(rng.sample(range(1000), count))
    votes = [rng.randrange(1, 6) for _ in slots]
    records = [slot // 50 for slot in slots]
    max_records, max_slots = rng.randrange(1, 25), rng.randrange(1, 60)
    of_record = {record: sum(v for v, r in zip(votes, records, strict=True) if r == record) for record in records}
    best = sorted(of_record, key=lambda record: (-of_record[record], record))[:max_records]
    kept = [(slot, vote) for slot, vote, record in zip(slots, votes, records, strict=True) if record in best]
    expected = sorted(slot for slot, _ in sorted(kept, key=lambda pair: (-pair[1], pair[0]))[:max_slots])
    assert choose(slots, votes, records, max_records, max_slots) == expected
