# SPDX-License-Identifier: Apache-2.0
"""Chains of maps, the numbering of slots, and the matcher, held against plain Python."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest

from deltaimg.arrays import FIRST_SLOT, RUN, end_blocks
from deltaimg.delta.match import Matcher
from deltaimg.errors import BrokenChain
from deltaimg.repo.chain import resolve_map
from deltaimg.repo.index import load_index
from deltaimg.repo.numbering import renumber_runs
from deltaimg.repo.slots import SlotTable
from tests.support.images import SyntheticImage
from tests.support.repositories import assert_restores, back_up_image, make_repository


@pytest.mark.native_speed
def test_a_chain_of_two_hundred_nights_resolves_at_once_and_restores() -> None:
    repository = make_repository()
    image = SyntheticImage(4 << 20, seed=9)
    image.write_pages(0, 3 << 20)
    for _ in range(200):
        image.write_random(image.random.randrange(1 << 20), 3000)
        manifest = back_up_image(repository, image)
    manifests = list(repository.load_manifests("vm1"))
    fulls = sum(each.map_is_full for each in manifests)
    assert 2 <= fulls <= 20, "a full map now and then, seldom"
    started = time.monotonic()
    table = SlotTable(repository, load_index(repository))
    resolved = resolve_map(repository, manifest, table)
    assert time.monotonic() - started < 5
    assert int(end_blocks(resolved.runs)[-1]) == 1024
    assert_restores(repository, manifest, image.content)


def test_a_missing_base_is_a_broken_chain() -> None:
    repository = make_repository()
    image = SyntheticImage(1 << 20)
    image.write_random(0, 1 << 19)
    first = back_up_image(repository, image)
    image.write_random(0, 10_000)
    second = back_up_image(repository, image)
    repository.store.delete(first.object_name)
    with pytest.raises(BrokenChain, match=first.id):
        resolve_map(repository, second, SlotTable(repository, load_index(repository)))


def test_renumbering_follows_every_block_to_its_record(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(50):
        counts = np.array([chance.randint(1, 9) for _ in range(chance.randint(1, 12))], np.int64)
        old = FIRST_SLOT + np.cumsum(counts) - counts
        order = chance.sample(range(len(counts)), len(counts))
        new = np.zeros(len(counts), np.int64)
        place = 100
        for record in order:
            new[record] = place
            place += int(counts[record])
        runs, block = [], 0
        for _ in range(chance.randint(1, 10)):
            start = chance.randrange(int(counts.sum()))
            length = chance.randint(1, int(counts.sum()) - start)
            runs.append((block, length, FIRST_SLOT + start))
            block += length
            runs.append((block, 3, chance.randrange(2)))
            block += 3
        given = np.array(runs, RUN)
        translation = {int(old[r]) + i: int(new[r]) + i for r in range(len(counts)) for i in range(int(counts[r]))}
        moved = renumber_runs(given, old, counts, new)

        def expand(list_of_runs: np.ndarray) -> list[int]:
            return [
                slot + (i if slot >= FIRST_SLOT else 0)
                for _, count, slot in list_of_runs.tolist()
                for i in range(count)
            ]

        assert expand(moved) == [translation.get(slot, slot) for slot in expand(given)]


def test_the_matcher_agrees_with_a_dictionary_as_its_table_grows(seed: int) -> None:
    chance = np.random.default_rng(seed)
    digests = np.zeros((2, 16), np.uint8)
    matcher = Matcher(digests, 2)
    known: dict[bytes, int] = {}
    pool = chance.integers(0, 256, (30_000, 16), dtype=np.uint8)
    for _ in range(40):
        wanted = pool[chance.integers(0, len(pool), 2000)]
        slots = matcher.match(wanted)
        for digest, slot in zip(wanted, slots.tolist(), strict=True):
            assert known.setdefault(digest.tobytes(), slot) == slot
    assert matcher.slot_count == 2 + len(known)
    assert matcher.memory_bytes <= 2 * (16 + 9.2) * len(known)


def test_what_the_matcher_takes_follows_the_budget() -> None:
    repository = make_repository()
    image = SyntheticImage(8 << 20)
    image.write_random(0, 8 << 20)
    back_up_image(repository, image, "a")
    from deltaimg.engine.backup.base import BYTES_A_KNOWN_BLOCK, load_other_content
    from deltaimg.engine.progress import NoProgress

    for budget in (0, 20_000, 1 << 20):
        table = SlotTable(repository, load_index(repository))
        load_other_content(table, 4096, budget, NoProgress())
        assert (table.slot_count - FIRST_SLOT) * BYTES_A_KNOWN_BLOCK <= budget
        matcher = Matcher(table.digests, table.slot_count)
        matcher.learn(FIRST_SLOT, table.slot_count - FIRST_SLOT) if table.slot_count > FIRST_SLOT else None
        assert matcher.memory_bytes <= budget + 40_000, "the smallest table is 16 KiB"
