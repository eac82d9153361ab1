# SPDX-License-Identifier: Apache-2.0
"""Which stored records to do without: their blocks of the image are stored again, so that a restore need not decode the rest.

With every backup the image uses less of old records, and a restore decodes them whole, with all that they depend on. Those are
chosen that waste most for each block that is stored again, until restore read amplification is within its bound or the budget
is used up. What a record wastes is what the image does not use of it, and its share of what is wasted by those it depends on.

After context-based rewriting (Kaczmarczyk et al., "Reducing Impact of Data Fragmentation Caused by In-line Deduplication",
SYSTOR 2012), which stores again at most a twentieth of a stream, and capping (Lillibridge et al., "Improving Restore Speed for
Backup Systems that Use Inline Chunk-Based Deduplication", FAST 2013); the order is that of a log cleaner by cost and benefit
(Rosenblum and Ousterhout, "The Design and Implementation of a Log-Structured File System", 1992).

Memory  40 bytes for each stored record.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.arrays import FIRST_SLOT, Runs
from deltaimg.engine.content.restore_needs import RestoreNeeds
from deltaimg.ids import RecordNumbers
from deltaimg.repo.numbering import list_named_slots
from deltaimg.repo.slots import SlotTable

LEAST_USE = 0.65
"""The share of a record that an image must use for the record to be a delta source where read amplification is at its bound."""
_ROUNDS = 16
"""A choice is made again with what it has really freed: what records depend on is only freed with the last of them."""

Numbers = npt.NDArray[np.int64]


class RewriteLimits(Struct, frozen=True):
    """What is aimed at, and how many blocks may be stored again for it."""

    read_amplification: float
    blocks: int

    @property
    def least_gain(self) -> float:
        """Blocks that a restore is spared for each one stored again, at least: half of what is wasted a block at the bound."""
        return (self.read_amplification - 1) / 2


def count_used_slots(table: SlotTable, runs: Runs, stored_count: int) -> Numbers:
    """Return how many slots of each stored record `runs` name, each slot counted once."""
    used = np.zeros(stored_count, np.int64)
    stored = runs[(runs["slot"] >= FIRST_SLOT) & (runs["slot"] < table.slot_count)]
    stored["count"] = np.minimum(stored["count"], table.slot_count - stored["slot"].astype(np.int64))
    for records, _, counts in list_named_slots(stored, table.first_slots, table.slot_counts):
        used += np.bincount(records, counts, stored_count).astype(np.int64)
    return used


def choose_rewritten(
    table: SlotTable,
    needs: RestoreNeeds,
    used: Numbers,
    limits: RewriteLimits,
    may_go: npt.NDArray[np.bool_] | None = None,
) -> RecordNumbers:
    """Return the records to do without, and take them out of `needs`.

    Args:
        used: of each stored record, how many of its slots the image uses. may_go: which of them may be chosen; None: all.
    """
    if may_go is not None:
        used = np.where(may_go, used, limits.blocks + 1)  # more than may be stored again
    chosen = [np.empty(0, np.int64)]
    left, rewritten_blocks = limits.blocks, 0
    for _ in range(_ROUNDS):
        excess = needs.decoded_blocks + rewritten_blocks - limits.read_amplification * needs.data_blocks
        if excess <= 0:
            break
        batch = _choose_batch(table, needs, used, excess, left, limits.least_gain)
        if not len(batch):
            break
        needs.drop(batch)
        left -= int(used[batch].sum())
        rewritten_blocks += int(used[batch].sum())
        chosen.append(batch)
    return RecordNumbers(np.concatenate(chosen))


def _choose_batch(
    table: SlotTable, needs: RestoreNeeds, used: Numbers, excess: float, most: int, least_gain: float
) -> RecordNumbers:
    """Return the best records by what they seem to cost, as many as should be enough."""
    records = np.flatnonzero((needs.direct > 0) & (used <= most))
    taken, gains = used[records], _share_waste(table, needs, used)[records]
    is_worth_it = (gains > 0) & (gains >= least_gain * taken)
    records, gains, taken = records[is_worth_it], gains[is_worth_it], taken[is_worth_it]
    order = np.argsort(-gains / taken, kind="stable")
    enough = int(np.searchsorted(np.cumsum(gains[order]), excess)) + 1
    order = order[:enough]
    return RecordNumbers(records[order[np.cumsum(taken[order]) <= most]])


def _share_waste(table: SlotTable, needs: RestoreNeeds, used: Numbers) -> npt.NDArray[np.float64]:
    """Return of each stored record how many blocks a restore would be spared if its used ones were stored again, about.

    That is what the image does not use of the record itself and of what it depends on. What several depend on is shared out
    among them; what new records depend on stays in any case.
    """
    is_open = needs.is_needed
    is_open[table.add_sources(RecordNumbers(needs.list_new_sources()))] = False
    waste = np.where(is_open, np.maximum(needs.record_blocks - used * (needs.direct > 0), 0), 0).astype(np.float64)
    uses = np.maximum(needs.users + (needs.direct > 0), 1)
    deltas = np.flatnonzero(is_open)
    depths = table.depths_of(RecordNumbers(deltas))
    for depth in range(1, int(depths.max(initial=0)) + 1):
        of_depth = RecordNumbers(deltas[depths == depth])
        if not len(of_depth):
            continue
        sources, counts = table.source_records(of_depth)
        waste[of_depth] += np.add.reduceat(waste[sources] / uses[sources], np.cumsum(counts) - counts)
    return waste / uses
