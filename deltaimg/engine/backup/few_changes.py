# SPDX-License-Identifier: Apache-2.0
"""A backup with few changed blocks: compared only with stored blocks that may equal one of them; new ones become literals.

Matching against all stored content, and finding delta sources, takes a table of every stored block and one of anchors, hundreds
of megabytes to be filled. An image in which next to nothing changed must not pay for that.

Memory  the gathered blocks, and `_BUDGET_BYTES` for digests of stored content.
"""

from __future__ import annotations

import numpy as np

from deltaimg.arrays import FIRST_SLOT
from deltaimg.delta.match import Matcher, find_candidates
from deltaimg.engine.backup.base import BYTES_A_KNOWN_BLOCK, load_other_content
from deltaimg.engine.backup.changed_blocks import ChangedBlocks
from deltaimg.engine.backup.context import BackupContext
from deltaimg.engine.backup.deduplicator import Deduplicator
from deltaimg.engine.backup.encoding import make_encoder
from deltaimg.engine.backup.record_stream import RecordStream
from deltaimg.engine.backup.rewrite import rewrite_scattered
from deltaimg.engine.content.restore_needs import RestoreNeeds
from deltaimg.ids import RecordNumbers
from deltaimg.model import MIB
from deltaimg.repo.pack_writer import PackWriter

_BUDGET_BYTES = 8 * MIB
"""For digests of other images and of earlier snapshots, some 300,000 blocks."""


def store_few_changes(context: BackupContext, writer: PackWriter, gathered: list[ChangedBlocks]) -> None:
    """Store the changed blocks of a backup, which are all in `gathered`."""
    table = context.base.table
    base_bytes = table.slot_count * BYTES_A_KNOWN_BLOCK
    budget_bytes = min(context.options.match_budget_bytes, base_bytes + _BUDGET_BYTES)
    load_other_content(
        table, context.block_bytes, budget_bytes, context.progress, only_own=context.repository.only_writes
    )
    table.add_sources(RecordNumbers(np.flatnonzero(table.index.links.depths[table.entries] >= 0)))
    needs = RestoreNeeds(table, context.base.runs)
    matcher = Matcher(table.digests, table.slot_count)
    wanted = np.concatenate([each.digests for each in gathered])
    slots = find_candidates(table.digests[: table.slot_count], wanted)
    slots = slots[slots >= FIRST_SLOT]
    for slot in slots[table.are_there(slots)].tolist():
        matcher.add_slots(slot, 1)
    encoder = make_encoder(context, ())
    with RecordStream(
        writer,
        encoder,
        block_bytes=context.block_bytes,
        first_slot=matcher.slot_count,
        workers=context.options.workers,
        needs=needs,
    ) as stream:
        deduplicator = Deduplicator(matcher, stream, context.new_map, needs)
        for changed in gathered:
            deduplicator.store(changed)
        if context.base.is_usable:
            rewrite_scattered(context, table, needs, deduplicator)
        deduplicator.finish(table)
