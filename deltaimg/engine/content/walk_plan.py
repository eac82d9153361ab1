# SPDX-License-Identifier: Apache-2.0
"""The order in which a walk expands records, and where it keeps the blocks that deltas need until then.

Literals are expanded in the order in which they lie in packs, which for most is that of the image, and deltas as soon as all
that they are encoded against is there: region by region, one step later for each level. So a block that a delta needs is mostly
in memory still, whether it was kept or is read back from what was just written, and its place serves another one then. By
depth alone, all literals first, a walk would keep every source of the snapshot, and go through all of the image for each level:
up to twice as slow, but for where memory holds the image and all of these. There it takes fewer requests, and is what is done.

Memory  24 bytes for each record, and while planning 24 bytes for each block that is kept.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.arrays import expand_ranges, group_by
from deltaimg.engine.content.spool import KeptSlots, find_source_slots
from deltaimg.ids import BlockIndexes, RecordNumbers, SlotNumbers
from deltaimg.memory import page_cache_bytes
from deltaimg.model import MIB
from deltaimg.repo.record_reader import ReadGroup, group_reads
from deltaimg.repo.slots import SlotTable

REGION_SOURCE_BYTES = 32 * MIB
"""So much do the deltas of a region need: with what waits for later regions, it mostly has room in memory."""
REMOTE_SOURCE_BYTES = 256 * MIB
"""The same over a network: the more regions, the more requests."""
_PAGE_CACHE_SHARE = 0.5
"""Of what is free: packs are read through it as well, and the machine has other work."""
_MOST_REGIONS = 1024
"""At the end of each step one core waits for the other, and requests end there as well."""

FindBlocks = Callable[[SlotNumbers], BlockIndexes]
"""Returns the block of the image that each slot can be read back from, -1 for none."""


class WalkPlan(Struct, frozen=True):
    """Which requests bring the records that are wanted, in steps: what a step needs was expanded in those before it."""

    steps: list[list[ReadGroup]]
    decoded_bytes: int
    """What all these records expand to, those that only others need included."""
    kept: KeptSlots
    """What deltas need and cannot be read back."""

    @property
    def read_bytes(self) -> int:
        """What is read from packs."""
        return sum(group.end - group.offset for step in self.steps for group in step)


def plan_walk(
    table: SlotTable,
    needed: RecordNumbers,
    block_bytes: int,
    *,
    region_source_bytes: int | None = None,
    placed_bytes: int = 0,
    find_blocks: FindBlocks | None = None,
) -> WalkPlan:
    """Plan a walk over `needed`, which are all records that are wanted and all that these are encoded against.

    Args:
        region_source_bytes: what the deltas of a region need, about. Without it, there is a step for each level of deltas, and
            what is kept stays there.
        placed_bytes: what the walk writes, all of which goes through the page cache.
        find_blocks: returns which slots the walk can read back; without it none.
    """
    sources = find_source_slots(table, needed)
    kept = sources if find_blocks is None else SlotNumbers(sources[find_blocks(sources) < 0])
    depths = table.depths_of(needed)
    numbers = depths.astype(np.int64)
    if region_source_bytes is not None:
        has_room = placed_bytes + len(kept) * block_bytes <= page_cache_bytes() * _PAGE_CACHE_SHARE
        region_count = min(-(-len(sources) * block_bytes // region_source_bytes), _MOST_REGIONS)
        numbers += _find_regions(table, needed, depths, 1 if has_room else region_count)
    steps = [RecordNumbers(needed[places]) for _, places in group_by(numbers)]
    return WalkPlan(
        [list(group_reads(table, records)) for records in steps],
        int(table.count_present(needed).sum()) * block_bytes,
        KeptSlots.apart(kept) if region_source_bytes is None else KeptSlots(kept, _share_places(table, steps, kept)),
    )


def _find_regions(
    table: SlotTable, needed: RecordNumbers, depths: npt.NDArray[np.int8], region_count: int
) -> npt.NDArray[np.int64]:
    """Return the region in which each of `needed` is expanded, none before one that it is encoded against."""
    if region_count < 2:
        return np.zeros(len(needed), np.int64)
    entries = table.index_rows(needed)
    turns = np.zeros(table.record_count, np.int64)
    turns[needed[np.lexsort((entries["offset"], entries["pack"]))]] = np.arange(len(needed))
    for depth in range(1, int(depths.max()) + 1):
        deltas = RecordNumbers(needed[depths == depth])
        sources, counts = table.source_records(deltas)
        turns[deltas] = np.maximum.reduceat(turns[sources], np.cumsum(counts) - counts)
    order = np.lexsort((depths, turns[needed]))
    ends = np.cumsum(table.count_present(needed)[order])
    regions = np.empty(len(needed), np.int64)
    regions[order] = (ends - 1) * region_count // ends[-1]
    return regions


def _share_places(table: SlotTable, steps: list[RecordNumbers], kept: SlotNumbers) -> npt.NDArray[np.int32]:
    """Return a place for each of `kept`, which no other has from when its record is expanded to the last step that needs it."""
    places, last_steps = np.zeros(len(kept), np.int32), np.zeros(len(kept), np.int32)
    if not len(kept):
        return places
    for number, records in enumerate(steps):
        slots = SlotNumbers(expand_ranges(*table.source_slots(RecordNumbers(records[table.are_deltas(records)]))))
        found = np.minimum(np.searchsorted(kept, slots), len(kept) - 1)
        last_steps[found[kept[found] == slots]] = number
    by_last_step = np.argsort(last_steps, kind="stable")
    bounds = np.searchsorted(last_steps[by_last_step], np.arange(len(steps) + 1)).tolist()
    free = _FreePlaces()
    for number, records in enumerate(steps):
        firsts = table.first_slots[records].astype(np.int64)
        starts, ends = np.searchsorted(kept, firsts), np.searchsorted(kept, firsts + table.slot_counts[records])
        new = expand_ranges(starts, ends - starts)
        places[new] = free.take(len(new))
        free.give_back(np.sort(places[by_last_step[bounds[number] : bounds[number + 1]]]))
    return places


class _FreePlaces:
    """Places without an end, those that were given back last first: they are in the caches of the processor still."""

    def __init__(self) -> None:
        self._given_back: list[npt.NDArray[np.int32]] = []
        self._first_unused = 0

    def take(self, count: int) -> npt.NDArray[np.int32]:
        taken = [np.empty(0, np.int32)]
        while count and self._given_back:
            places = self._given_back.pop()
            taken.append(places[:count])
            if len(places) > count:
                self._given_back.append(places[count:])
            count -= len(taken[-1])
        taken.append(np.arange(self._first_unused, self._first_unused + count, dtype=np.int32))
        self._first_unused += count
        return np.concatenate(taken)

    def give_back(self, places: npt.NDArray[np.int32]) -> None:
        self._given_back.append(places)
