# SPDX-License-Identifier: Apache-2.0
"""A backup with many changed blocks: matched against all stored content, ordered, and encoded against similar content.

Memory  within `match_budget_bytes` for digests of stored content, and `delta_budget_bytes` for anchors.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack

import numpy as np

from deltaimg.delta.encode import count_record_blocks
from deltaimg.delta.registry import make_delta_codecs
from deltaimg.engine.backup.base import load_other_content
from deltaimg.engine.backup.block_order import BlockOrder
from deltaimg.engine.backup.changed_blocks import ChangedBlocks
from deltaimg.engine.backup.context import BackupContext
from deltaimg.engine.backup.deduplicator import Deduplicator, learn_stored_blocks
from deltaimg.engine.backup.delta_sources.anchor_cache import AnchorFile
from deltaimg.engine.backup.delta_sources.open import DeltaSources, load_anchors, open_delta_sources
from deltaimg.engine.backup.delta_sources.permitted import PermittedSources
from deltaimg.engine.backup.encoding import make_encoder
from deltaimg.engine.backup.record_stream import RecordStream
from deltaimg.engine.backup.rewrite import rewrite_scattered
from deltaimg.engine.content.restore_needs import RestoreNeeds
from deltaimg.ids import RecordNumbers
from deltaimg.repo.pack_writer import PackWriter


class ManyChanges:
    """Takes changed blocks in the order of the scan; a context manager around its threads and files."""

    def __init__(self, context: BackupContext, writer: PackWriter) -> None:
        """Load all content that can be referred to and encoded against."""
        options, table = context.options, context.base.table
        self._table = table
        load_other_content(
            table,
            context.block_bytes,
            options.match_budget_bytes,
            context.progress,
            only_own=context.repository.only_writes,
        )
        delta_codecs = make_delta_codecs(options.delta, options.level)
        anchors = load_anchors(context) if delta_codecs else None
        # Whatever may become a delta source later must be numbered now: new slots follow the last of these.
        table.add_sources(RecordNumbers(np.flatnonzero(table.index.links.depths[table.entries] >= 0)))
        matcher = learn_stored_blocks(table)
        self._context, self._needs = context, RestoreNeeds(table, context.base.runs)
        self._delta_sources: DeltaSources | None = None
        self._anchors: AnchorFile | None = None
        with ExitStack() as stack:
            if anchors is not None:
                permitted = PermittedSources(table, self._needs, options.max_read_amplification, options.max_depth)
                self._delta_sources = stack.enter_context(open_delta_sources(context, anchors, matcher, permitted))
            stream = RecordStream(
                writer,
                make_encoder(context, delta_codecs),
                block_bytes=context.block_bytes,
                first_slot=matcher.slot_count,
                workers=options.workers,
                delta_sources=self._delta_sources,
                needs=self._needs,
            )
            self._deduplicator = Deduplicator(matcher, stack.enter_context(stream), context.new_map, self._needs)
            self._order = (
                BlockOrder(table, context.base.runs, count_record_blocks(context.block_bytes), context.block_bytes)
                if delta_codecs and context.base.is_usable
                else None
            )
            self._stack = stack.pop_all()

    def __enter__(self) -> ManyChanges:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, changed: ChangedBlocks) -> None:
        """Take changed blocks, which are copied."""
        if self._delta_sources is not None:
            self._delta_sources.note_changed(changed.blocks)
        self._store(self._order.add(changed) if self._order else (changed,))

    def finish(self) -> None:
        """Store what is left."""
        self._store(self._order.drain() if self._order else ())
        if self._context.base.is_usable:
            rewrite_scattered(self._context, self._table, self._needs, self._deduplicator)
        self._deduplicator.finish(self._table)
        if self._delta_sources is not None:
            stream = self._deduplicator.stream
            self._anchors = self._delta_sources.begin_keeping(stream.record_ids, stream.slot_counts)
            if self._anchors is not None:
                self._stack.enter_context(self._anchors)

    def _store(self, batches: Iterable[ChangedBlocks]) -> None:
        for batch in batches:
            self._deduplicator.store(batch)
            self._table.share_digests(self._deduplicator.digests)

    def keep_for_next_run(self) -> None:
        """Update what this host keeps for the next backup."""
        if self._delta_sources is not None and self._anchors is not None:
            self._delta_sources.keep_for_next_run(self._anchors)
