# SPDX-License-Identifier: Apache-2.0
"""Store unchanged blocks again at the end of a backup, where a restore would otherwise decode too much for them.

The blocks are read from the image again and compared with their digests: what was written to since the scan stays as it is.

Memory  `_BATCH_BYTES` of blocks; 24 bytes for each block that is stored again.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.arrays import FIRST_SLOT, Runs, empty_runs, expand_ranges, ranges_of_blocks, runs_from_blocks
from deltaimg.engine.backup.changed_blocks import ChangedBlocks
from deltaimg.engine.backup.context import BackupContext
from deltaimg.engine.backup.deduplicator import Deduplicator
from deltaimg.engine.content.restore_needs import RestoreNeeds
from deltaimg.engine.content.rewrite_choice import RewriteLimits, choose_rewritten, count_used_slots
from deltaimg.engine.progress import stage
from deltaimg.ids import RecordNumbers
from deltaimg.kernels import digest_blocks
from deltaimg.model import MIB
from deltaimg.repo.slots import SlotTable

Numbers = npt.NDArray[np.int64]

_BATCH_BYTES = 2 * MIB
_DEFAULT_SHARE = 20
"""One block in so many may be stored again."""


class _Placed(Struct, frozen=True):
    """Blocks of the image, ascending, and the slots that they are in."""

    blocks: Numbers
    slots: Numbers


def find_limits(context: BackupContext, data_blocks: int) -> RewriteLimits:
    """Return what the options of a backup aim at and permit, for an image of so many blocks of data."""
    options = context.options
    most = data_blocks // _DEFAULT_SHARE
    if options.max_rewrite_bytes is not None:
        most = options.max_rewrite_bytes // context.block_bytes
    if context.source.is_sequential:
        most = 0  # a stream cannot be read again
    return RewriteLimits(options.max_read_amplification, most)


def rewrite_scattered(
    context: BackupContext, table: SlotTable, needs: RestoreNeeds, deduplicator: Deduplicator
) -> None:
    """Store blocks again until restore read amplification is within its bound, and enter them in the new map.

    Nothing may be stored after that.

    Args:
        needs: of all that was stored so far.
    """
    stream = deduplicator.stream
    waiting_blocks = stream.settle()
    runs = context.new_map.overlay(context.base.runs, context.source.size_bytes or 0)
    needs.settle(runs)
    used = count_used_slots(table, runs, needs.stored_count)
    chosen = choose_rewritten(table, needs, used, find_limits(context, needs.data_blocks))
    if not len(chosen):
        return
    stream.begin_rewriting()
    placed, stored_before = _find_blocks(table, runs, chosen), stream.payload_bytes
    old_slots, new_slots = _store_again(context, placed, deduplicator)
    stream.finish()
    # The record that was not full yet has some of them and some of before.
    share = len(old_slots) / max(1, len(old_slots) + waiting_blocks)
    payload_bytes = round((stream.payload_bytes - stored_before) * share)
    context.new_map.note_rewritten(_move(placed, old_slots, new_slots), len(old_slots), payload_bytes)


def _move(placed: _Placed, old_slots: Numbers, new_slots: Numbers) -> Runs:
    """Return runs of the blocks that are in `old_slots`, which ascend, with the new slots of these."""
    if not len(old_slots):
        return empty_runs()
    places = np.minimum(np.searchsorted(old_slots, placed.slots), len(old_slots) - 1)
    is_moved = old_slots[places] == placed.slots
    slots = new_slots[places[is_moved]].astype(np.uint32)
    return runs_from_blocks(placed.blocks[is_moved].astype(np.uint64), slots)


def _find_blocks(table: SlotTable, runs: Runs, chosen: RecordNumbers) -> _Placed:
    """Return the blocks of the image that are in `chosen` records."""
    data = runs[(runs["slot"] >= FIRST_SLOT) & (runs["slot"] < table.slot_count)]
    data["count"] = np.minimum(data["count"], table.slot_count - data["slot"].astype(np.int64))
    cut = table.cut_at_records(data, "the map")
    is_chosen = np.zeros(table.record_count, np.bool_)
    is_chosen[chosen] = True
    cut = cut[is_chosen[table.records_of(cut["slot"])]]
    counts = cut["count"].astype(np.int64)
    return _Placed(
        expand_ranges(cut["first_block"].astype(np.int64), counts), expand_ranges(cut["slot"].astype(np.int64), counts)
    )


def _store_again(context: BackupContext, placed: _Placed, deduplicator: Deduplicator) -> tuple[Numbers, Numbers]:
    """Store each slot's block once; return the slots whose blocks were stored, ascending, and their new slots."""
    block_bytes, key = context.block_bytes, context.repository.keys.block
    firsts = np.sort(np.unique(placed.slots, return_index=True)[1])
    blocks, slots = placed.blocks[firsts], placed.slots[firsts]
    batch_blocks = max(1, _BATCH_BYTES // block_bytes)
    found: list[tuple[Numbers, Numbers]] = []
    with stage(context.progress, "storing scattered blocks again", len(blocks) * block_bytes):
        for first in range(0, len(blocks), batch_blocks):
            batch, of_batch = blocks[first : first + batch_blocks], slots[first : first + batch_blocks]
            content = np.zeros(len(batch) * block_bytes, np.uint8)
            context.source.reread(ranges_of_blocks(batch, np.arange(len(batch)), block_bytes), content.data)
            digests = digest_blocks(key, content.data, block_bytes)
            is_same = (digests == deduplicator.digests[of_batch]).all(axis=1)
            kept = np.flatnonzero(is_same)
            changed = ChangedBlocks(content.data, kept.astype(np.uint32), batch[kept].astype(np.uint64), digests[kept])
            found.append((of_batch[kept], deduplicator.store_again(changed)))
            context.progress.advance(len(content))
    old, new = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.argsort(old)
    return old[order], new[order]
