# SPDX-License-Identifier: Apache-2.0
"""Slots looked up in a map, and blocks kept in a spool, against dictionaries."""

from __future__ import annotations

import random

import numpy as np
import pytest

from deltaimg.arrays import FIRST_SLOT, RUN
from deltaimg.engine.content import spool as spool_module
from deltaimg.engine.content.slot_lookup import SlotLookup
from deltaimg.engine.content.spool import KeptSlots, Spool

BLOCK = 512


def test_a_slot_is_found_where_a_map_has_it(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(100):
        runs, places, block = [], {}, 0
        for _ in range(chance.randrange(12)):
            slot, count = chance.choice((0, 1, FIRST_SLOT + chance.randrange(40))), chance.randint(1, 9)
            runs.append((block, count, slot))
            if slot >= FIRST_SLOT:
                for place in range(count):
                    places.setdefault(slot + place, set()).add(block + place)
            block += count + chance.randrange(2)
        found = SlotLookup(np.array(runs, RUN)).find(np.arange(FIRST_SLOT, FIRST_SLOT + 60))
        for slot, at in enumerate(found.tolist(), FIRST_SLOT):
            assert at in places.get(slot, {-1})


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_spool_gives_back_what_was_put(seed: int, in_memory: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "MEMORY_BYTES", 1 << 20 if in_memory else 0)
    chance = random.Random(seed)
    kept = np.array(sorted(chance.sample(range(FIRST_SLOT, 200), 60)), np.int64)
    spool = Spool(KeptSlots.apart(kept), BLOCK)
    try:
        blocks = {slot: chance.randbytes(BLOCK) for slot in range(FIRST_SLOT, 200)}
        for first in range(FIRST_SLOT, 200, 20):
            content = b"".join(blocks[slot] for slot in range(first, min(first + 20, 200)))
            spool.put(first, memoryview(content))
        assert spool.size_bytes == 60 * BLOCK
        wanted = np.array(chance.choices(kept.tolist(), k=25), np.int64)
        out = bytearray(25 * BLOCK)
        spool.get(wanted, memoryview(out))
        assert bytes(out) == b"".join(blocks[slot] for slot in wanted.tolist())
    finally:
        spool.close()
        spool.close()


def test_a_spool_of_nothing_opens_no_file() -> None:
    spool = Spool(KeptSlots.apart(np.empty(0, np.int64)), BLOCK)
    spool.put(FIRST_SLOT, memoryview(bytes(BLOCK)))
    spool.get(np.empty(0, np.int64), memoryview(bytearray()))
    spool.close()
