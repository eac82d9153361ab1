# SPDX-License-Identifier: Apache-2.0
"""Digests by slot, against a dictionary; candidates are a superset of what is wanted."""

from __future__ import annotations

import numpy as np
import pytest

from deltaimg.arrays import FIRST_SLOT, Digests
from deltaimg.delta.match import Matcher, find_candidates


def make_digests(count: int, seed: int) -> Digests:
    return np.random.default_rng(seed).integers(0, 256, (count, 16), np.uint8)


def start(known: Digests) -> Matcher:
    """Return a matcher whose slots from 2 on have these digests; none is findable yet."""
    digests = np.concatenate((np.zeros((FIRST_SLOT, 16), np.uint8), known))
    return Matcher(digests, len(digests))


def test_known_digests_get_their_slots_and_new_ones_the_next() -> None:
    known, new = make_digests(5000, 1), make_digests(3000, 2)
    matcher = start(known)
    matcher.add_slots(FIRST_SLOT, len(known))
    assert matcher.match(known[::-1]).tolist() == list(range(FIRST_SLOT + 4999, FIRST_SLOT - 1, -1))
    first_new = matcher.slot_count
    assert matcher.match(new).tolist() == list(range(first_new, first_new + 3000))
    assert matcher.match(new).tolist() == list(range(first_new, first_new + 3000)), "they are known by now"
    assert np.array_equal(matcher.digests[first_new : matcher.slot_count], new)


def test_slots_that_were_not_added_are_not_found() -> None:
    known = make_digests(100, 3)
    matcher = start(known)
    matcher.add_slots(FIRST_SLOT, 50)
    found = matcher.match(known)
    assert found[:50].tolist() == list(range(FIRST_SLOT, FIRST_SLOT + 50))
    assert found[50:].min() >= FIRST_SLOT + 100


@pytest.mark.parametrize("seed", range(5))
def test_slots_are_those_of_a_dictionary(seed: int) -> None:
    """Batches of digests with repetitions, across several growths of the table."""
    rng = np.random.default_rng(seed)
    pool = make_digests(20_000, seed + 10)
    matcher = start(pool[:0])
    slots: dict[bytes, int] = {}
    for _ in range(12):
        batch = pool[rng.integers(0, len(pool), rng.integers(1, 6000))]
        expected = [slots.setdefault(each.tobytes(), FIRST_SLOT + len(slots)) for each in batch]
        assert matcher.match(batch).tolist() == expected
        assert matcher.slot_count == FIRST_SLOT + len(slots)
    assert matcher.memory_bytes >= 16 * len(slots)


def test_candidates_are_all_that_are_wanted_and_few_others() -> None:
    known, wanted = make_digests(50_000, 4), make_digests(10, 5)
    places = [7, 20_000, 49_999]
    known[places] = wanted[:3]
    found = find_candidates(known, wanted)
    assert set(places) <= set(found.tolist())
    assert found.tolist() == sorted(found.tolist())
    assert len(found) < 20
    assert not len(find_candidates(known, wanted[:0]))
