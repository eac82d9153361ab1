# SPDX-License-Identifier: Apache-2.0
"""Records are found by their ids, also where many ids share a prefix, or many entries have one id."""

from __future__ import annotations

import random

import numpy as np
import pytest

from deltaimg.repo.record_lookup import RecordLookup


def make_id(chance: random.Random) -> bytes:
    """Return one of few ids, many of which begin alike."""
    return bytes([chance.randrange(3)]) + bytes(6) + bytes([chance.randrange(3) for _ in range(3)]) + bytes(6)


def as_ids(ids: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(ids), np.uint8).reshape(-1, 16)


def test_finding_agrees_with_a_dictionary(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(60):
        ids = [make_id(chance) for _ in range(chance.randrange(60))]
        ranks = [chance.randrange(3) for _ in ids]
        wanted = [make_id(chance) for _ in range(40)]
        lookup = RecordLookup(as_ids(ids), np.array(ranks, np.int8))
        best = {each: sorted((ranks[n], n) for n in range(len(ids)) if ids[n] == each) for each in ids}
        for place in range(4):
            expected = [best[each][place][1] if place < len(best.get(each, ())) else -1 for each in wanted]
            assert lookup.find(as_ids(wanted), place).tolist() == expected
        chosen = {chance.choice(places)[1] for places in best.values() if chance.random() < 0.5}
        lookup.prefer(np.array(sorted(chosen), np.int64))
        for each, places in best.items():
            preferred = [n for _, n in places if n in chosen] + [n for _, n in places if n not in chosen]
            found = [int(lookup.find(as_ids([each]), place)[0]) for place in range(len(places))]
            assert found == preferred


@pytest.mark.parametrize("case", ["ids begin alike", "one id"])
def test_many_that_are_alike_are_found_at_once(case: str) -> None:
    """One after another they would be passed over 2^16 times for each that is wanted, which takes minutes."""
    count = 1 << 16
    ids = np.zeros((count, 16), np.uint8)
    if case == "one id":
        lookup = RecordLookup(ids, np.zeros(count, np.int8))
        assert lookup.find(ids[:1], count - 1).tolist() == [count - 1]
        assert lookup.find(ids[:1], count).tolist() == [-1]
    else:
        ids[:, 8:] = np.random.default_rng(1).permutation(count).astype("<u8")[:, np.newaxis].view(np.uint8)
        lookup = RecordLookup(ids, np.zeros(count, np.int8))
        assert lookup.find(ids).tolist() == list(range(count))
