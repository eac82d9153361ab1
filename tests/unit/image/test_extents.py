# SPDX-License-Identifier: Apache-2.0
"""Extents: they cover the image, a hole is only where one was reported, and blocks of several statuses are read."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from deltaimg.image.extents import (
    DATA,
    EMPTY,
    FREE,
    HOLE,
    NOT_EMPTY,
    UNCHANGED,
    ZERO,
    Extents,
    ExtentStatus,
    are_inside,
    merge_bounds,
    subtract_bounds,
)

Listed = list[tuple[int, int, ExtentStatus]]


def extents_of(*extents: tuple[int, int, ExtentStatus]) -> Extents:
    """Return extents that were listed one by one, without a gap."""
    starts = np.array([start for start, _, _ in extents], np.int64)
    statuses = np.array([status for _, _, status in extents], np.uint8)
    return Extents(starts, statuses, extents[-1][1])


def listed(extents: Extents) -> Listed:
    return [(each.start, each.end, each.status) for each in extents]


def bytes_of(extents: Extents) -> list[ExtentStatus]:
    """Return the status of each byte."""
    return [each.status for each in extents for _ in range(each.length)]


def test_an_image_is_data_unless_something_else_is_reported() -> None:
    assert listed(Extents.uniform(100)) == [(0, 100, DATA)]
    assert listed(Extents.uniform(0)) == []


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ([], [(0, 100, HOLE)]),
        ([[0, 100]], [(0, 100, DATA)]),
        ([[0, 10], [90, 100]], [(0, 10, DATA), (10, 90, HOLE), (90, 100, DATA)]),
        ([[10, 20], [20, 30]], [(0, 10, HOLE), (10, 30, DATA), (30, 100, HOLE)]),
    ],
)
def test_bounds_become_extents_without_a_gap(bounds: list[list[int]], expected: Listed) -> None:
    array = np.array(bounds, np.int64).reshape(-1, 2)
    assert listed(Extents.from_bounds(array, 100, inside=DATA, outside=HOLE)) == expected


def test_touching_extents_are_found_as_one() -> None:
    extents = extents_of((0, 10, DATA), (10, 20, FREE), (20, 30, HOLE), (30, 40, ZERO), (40, 50, UNCHANGED))
    assert extents.find(*NOT_EMPTY).tolist() == [[0, 20], [40, 50]]
    assert extents.find(*EMPTY).tolist() == [[20, 40]]
    assert extents.find(UNCHANGED).tolist() == [[40, 50]]
    assert extents.count_bytes(DATA, FREE) == 20
    assert extents.find().shape == (0, 2)


def test_the_first_bytes_have_the_first_extents() -> None:
    extents = extents_of((0, 10, DATA), (10, 20, HOLE), (20, 30, DATA))
    assert listed(extents.clip(15)) == [(0, 10, DATA), (10, 15, HOLE)]
    assert listed(extents.clip(10)) == [(0, 10, DATA)]
    assert listed(extents.clip(0)) == []
    assert listed(extents.clip(100)) == listed(extents)


@pytest.mark.parametrize(
    ("base_bytes", "expected"),
    [
        (0, [(0, 10, HOLE), (10, 30, DATA), (30, 40, FREE)]),
        (10, [(0, 10, HOLE), (10, 30, DATA), (30, 40, FREE)]),
        (15, [(0, 10, HOLE), (10, 15, UNCHANGED), (15, 30, DATA), (30, 40, FREE)]),
        (35, [(0, 10, HOLE), (10, 30, UNCHANGED), (30, 40, FREE)]),
        (99, [(0, 10, HOLE), (10, 30, UNCHANGED), (30, 40, FREE)]),
    ],
)
def test_nothing_is_unchanged_that_the_base_has_not(base_bytes: int, expected: Listed) -> None:
    extents = extents_of((0, 10, HOLE), (10, 30, UNCHANGED), (30, 40, FREE))
    assert listed(extents.without_base(base_bytes)) == expected


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ((HOLE, ZERO), ZERO),
        ((HOLE, DATA), DATA),
        ((HOLE, FREE), DATA),
        ((UNCHANGED, HOLE), DATA),
        ((FREE, UNCHANGED), DATA),
        ((HOLE, DATA, HOLE), DATA),
        ((HOLE, ZERO, HOLE), ZERO),
    ],
)
def test_a_block_of_several_statuses_is_read_unless_it_is_empty(
    statuses: tuple[ExtentStatus, ...], expected: ExtentStatus
) -> None:
    parts = [(number * 10, number * 10 + 10, status) for number, status in enumerate(statuses)]
    assert listed(extents_of(*parts).align(64)) == [(0, 10 * len(statuses), expected)]


def test_aligned_extents_are_those_of_each_block() -> None:
    """Against a byte-by-byte count, at random."""
    rng = random.Random(3)
    for _ in range(300):
        size = rng.randrange(1, 200)
        edges = sorted({0, *(rng.randrange(size) for _ in range(rng.randrange(12))), size})
        parts = [(a, b, rng.choice(list(ExtentStatus))) for a, b in itertools.pairwise(edges)]
        extents, block = extents_of(*parts), rng.choice([1, 4, 8, 16])
        per_byte, aligned = bytes_of(extents), bytes_of(extents.align(block))
        assert len(aligned) == size
        for start in range(0, size, block):
            found = set(per_byte[start : start + block])
            both = ZERO if found <= set(EMPTY) else DATA
            assert set(aligned[start : start + block]) == (found if len(found) == 1 else {both})


def test_extents_of_nothing_stay_so() -> None:
    nothing = Extents.uniform(0)
    assert listed(nothing.align(4096)) == []
    assert nothing.find(DATA).shape == (0, 2)
    assert nothing.count_bytes(DATA) == 0
    assert listed(nothing.without_base()) == []


def test_bounds_are_merged_and_subtracted_as_sets_of_bytes(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(300):
        first, second = (
            np.array([sorted(chance.choices(range(40), k=2)) for _ in range(chance.randrange(6))], np.int64).reshape(
                -1, 2
            )
            for _ in range(2)
        )
        sets = [{byte for start, end in each.tolist() for byte in range(start, end)} for each in (first, second)]
        merged, removed = merge_bounds(first), merge_bounds(second)
        for found, expected in ((merged, sets[0]), (subtract_bounds(merged, removed), sets[0] - sets[1])):
            edges = found.ravel().tolist()
            assert edges == sorted(set(edges))
            assert {byte for start, end in found.tolist() for byte in range(start, end)} == expected
        assert are_inside(np.arange(40), merged).tolist() == [byte in sets[0] for byte in range(40)]


def test_what_is_not_listed_becomes_unchanged_where_it_is_data(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(300):
        size = chance.randrange(1, 40)
        starts = sorted({0, *chance.choices(range(size), k=4)})
        statuses = [chance.choice([DATA, HOLE, ZERO, FREE]) for _ in starts]
        extents = Extents(np.array(starts, np.int64), np.array(statuses, np.uint8), size)
        changed = merge_bounds(
            np.array([sorted(chance.choices(range(60), k=2)) for _ in range(chance.randrange(4))], np.int64).reshape(
                -1, 2
            )
        )
        inside = are_inside(np.arange(size), changed)
        expected = [
            UNCHANGED if status == DATA and not is_inside else status
            for status, is_inside in zip(bytes_of(extents), inside, strict=True)
        ]
        assert bytes_of(extents.mark_unchanged(changed)) == expected


def test_what_is_free_is_free_where_it_is_data(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(200):
        size = chance.randrange(1, 40)
        starts = sorted({0, *chance.choices(range(size), k=4)})
        statuses = [chance.choice([DATA, HOLE, ZERO, UNCHANGED]) for _ in starts]
        extents = Extents(np.array(starts, np.int64), np.array(statuses, np.uint8), size)
        free = merge_bounds(
            np.array([sorted(chance.choices(range(60), k=2)) for _ in range(chance.randrange(4))], np.int64).reshape(
                -1, 2
            )
        )
        inside = are_inside(np.arange(size), free)
        expected = [
            FREE if status == DATA and is_inside else status
            for status, is_inside in zip(bytes_of(extents), inside, strict=True)
        ]
        assert bytes_of(extents.mark_free(free)) == expected
