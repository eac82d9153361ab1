# SPDX-License-Identifier: Apache-2.0
"""What becomes of the changed blocks of a run: a reference where they are stored already, else records of new content.

To refer to all that is known and to encode against what is similar takes a table of every known block and one of anchors,
hundreds of megabytes to be filled. A night that changes next to nothing must not pay for that: the first changed blocks are
gathered, and if the scan ends with no more than these, only those known blocks are looked at that can be equal to one of them,
and records stand alone.

Memory  up to `FEW_BYTES` of gathered blocks, then the tables.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import FIRST_SLOT, Runs, count_run_blocks, empty_runs, expand_ranges, join_runs
from deltaimg.codec.zstd import LEVELS, ZstdCodec
from deltaimg.delta.encode import Encoder, count_record_blocks
from deltaimg.delta.interface import DeltaCodecs
from deltaimg.delta.match import Matcher, find_candidates
from deltaimg.delta.registry import FORCED_MODES, find_delta_decoder, make_delta_codecs, make_second_codec
from deltaimg.delta.sources import BEST_LIMITS, SourceLimits
from deltaimg.engine.backup.anchor_cache import AnchorCache, open_anchor_cache
from deltaimg.engine.backup.base import BYTES_A_KNOWN_BLOCK, load_other_content
from deltaimg.engine.backup.block_order import BlockOrder, ChangedBlocks
from deltaimg.engine.backup.cache_folder import CacheFolder
from deltaimg.engine.backup.content_cache import ContentCache
from deltaimg.engine.backup.delta_cost import DeltaCost
from deltaimg.engine.backup.expanded_records import ExpandedRecords
from deltaimg.engine.backup.options import BackupOptions
from deltaimg.engine.backup.record_stream import RecordStream
from deltaimg.engine.backup.relatives import Relatives
from deltaimg.engine.backup.seen import SeenImage
from deltaimg.engine.backup.source_finder import SourceFinder
from deltaimg.engine.progress import Progress
from deltaimg.engine.scan import ScannedSpan, count_span_bytes
from deltaimg.image.source import Source
from deltaimg.kernels import CHANGED
from deltaimg.model import KIB, MIB
from deltaimg.repo.pack_writer import PackWriter
from deltaimg.repo.record_reader import RecordReader
from deltaimg.repo.repository import Repository
from deltaimg.repo.slots import SlotTable

FEW_BYTES = 256 * KIB
FEW_SHARE = 4096
"""So many bytes are few, or one in so many of the base if that is less: what mounting a file system changes. Deltas would save
some tens of KiB of it."""
_FEW_BUDGET_BYTES = 8 * MIB
"""For content of other images and of earlier nights, some 300,000 blocks, when few blocks changed."""


class NewContent:
    """Takes the changed blocks of a run, span by span; a context manager around its threads."""

    def __init__(
        self,
        repository: Repository,
        table: SlotTable,
        source: Source,
        writer: PackWriter,
        seen: SeenImage,
        options: BackupOptions,
        *,
        image: str,
        base_runs: Runs | None,
        extents: npt.NDArray[np.int64],
        block_bytes: int,
        progress: Progress,
    ) -> None:
        """Args: seen: is told where each changed block is stored. base_runs: None if there is no base."""
        self._repository, self._table, self._source, self._writer = repository, table, source, writer
        self._seen, self._options, self._image, self._progress = seen, options, image, progress
        self._has_base = base_runs is not None
        self._base_runs = empty_runs() if base_runs is None else base_runs
        self._extents, self._block_bytes = extents, block_bytes
        self._stack = ExitStack()
        self._waiting: list[ChangedBlocks] = []
        few_bytes = min(FEW_BYTES, table.slot_count * block_bytes // FEW_SHARE)
        self._most_waiting = 0 if options.delta in FORCED_MODES else few_bytes // block_bytes
        self._matcher: Matcher | None = None
        self._stream: RecordStream | None = None
        self._order: BlockOrder | None = None
        self._anchors: AnchorCache | None = None
        self._contents: ContentCache | None = None
        self._cache = None if options.cache_folder is None else CacheFolder(options.cache_folder)

    def __enter__(self) -> NewContent:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def take(self, span: ScannedSpan, content: memoryview) -> bool:
        """Take the changed blocks of a span, which are copied; return whether the tables were filled for them just now."""
        changed = span.statuses[span.statuses["status"] == CHANGED]
        indexes = expand_ranges(changed["first"].astype(np.int64), changed["count"].astype(np.int64)).astype(np.uint32)
        taken = ChangedBlocks(
            content, indexes, indexes.astype(np.uint64) + np.uint64(span.first_block), span.digests[indexes]
        )
        is_opened = False
        if self._stream is None:
            if len(indexes) + sum(len(each.blocks) for each in self._waiting) <= self._most_waiting:
                self._waiting.append(taken.copy(self._block_bytes))
                return False
            self._open_for_many()
            is_opened = True
        for batch in self._order.add(taken) if self._order else (taken,):
            self._store(batch)
        return is_opened

    def finish(self) -> None:
        """Store what is left, and give the records that were made their numbers."""
        if self._waiting:
            self._open_for_few()
        for batch in self._order.drain() if self._order else ():
            self._store(batch)
        if self._stream and self._matcher:
            self._stream.finish()
            # New slots were numbered from here on: a record that came into view meanwhile would have taken their numbers.
            assert self._table.slot_count + int(self._stream.slot_counts.sum()) == self._matcher.slot_count
            self._table.add_new_records(self._stream.record_ids, self._stream.slot_counts, self._matcher.digests)

    def keep_for_next_run(self) -> None:
        """Keep the anchors, and trim the cache. Without it a backup is slower or larger, so that a failure is no error."""
        cache, repository_id = self._cache, self._repository.config.repository_id
        if cache is None or self._anchors is None or self._contents is None or self._stream is None:
            return
        failure = self._contents.failure
        try:
            cache.note_location(repository_id, self._repository.store.location)
            self._anchors.save(
                cache.anchors_path(repository_id, self._image),
                repository_id,
                self._stream.record_ids,
                self._stream.slot_counts,
            )
        except OSError as error:
            failure = error
        cache.trim(self._options.cache_budget_bytes)
        if failure is not None:
            self._progress.warn(
                f"the cache in {cache.path} is not up to date, which slows the next backup: {failure.strerror}"
            )

    # -- parts -------------------------------------------------------------------------------------------------------

    def _open_for_many(self) -> None:
        """Learn all that can be referred to and encoded against."""
        options = self._options
        load_other_content(self._table, self._block_bytes, options.match_budget_bytes, self._progress)
        delta_codecs = make_delta_codecs(options.delta, options.level)
        anchors = self._open_anchors() if delta_codecs else None
        matcher = self._make_matcher()
        self._open_stream(matcher, delta_codecs, self._make_finder(matcher, anchors) if anchors else None)
        if delta_codecs and self._has_base:
            record_blocks = count_record_blocks(self._block_bytes)
            self._order = BlockOrder(self._table, self._base_runs, record_blocks, self._block_bytes)

    def _open_for_few(self) -> None:
        """Learn what can be equal to one of the waiting blocks."""
        table = self._table
        budget = min(self._options.match_budget_bytes, table.slot_count * BYTES_A_KNOWN_BLOCK + _FEW_BUDGET_BYTES)
        load_other_content(table, self._block_bytes, budget, self._progress)
        matcher = Matcher(table.digests, table.slot_count)
        wanted = np.concatenate([each.digests for each in self._waiting])
        slots = find_candidates(table.digests[: table.slot_count], wanted)
        slots = slots[slots >= FIRST_SLOT]
        for slot in slots[table.are_there(slots)].tolist():
            matcher.learn(slot, 1)
        self._open_stream(matcher, (), None)

    def _open_stream(self, matcher: Matcher, delta_codecs: DeltaCodecs, finder: SourceFinder | None) -> None:
        """Open the way of new blocks into records, and send those along it that are waiting."""
        options = self._options
        encoder = Encoder(
            ZstdCodec(options.level),
            delta_codecs,
            record_key=self._repository.keys.record,
            block_bytes=self._block_bytes,
            is_delta_forced=options.delta in FORCED_MODES,
            second_codec=make_second_codec(options.delta, options.level),
        )
        stream = RecordStream(
            self._writer,
            encoder,
            block_bytes=self._block_bytes,
            first_slot=matcher.slot_count,
            workers=options.workers,
            finder=finder,
            # A first full backup would become a tenth smaller by deltas within itself, and take twice as long.
            uses_sources=options.delta != "auto" or self._has_base,
        )
        self._matcher, self._stream = matcher, self._stack.enter_context(stream)
        for each in self._waiting:
            self._store(each)
        self._waiting = []

    def _store(self, changed: ChangedBlocks) -> None:
        """Refer to those of the changed blocks that are stored already, and store the others."""
        matcher, stream = self._matcher, self._stream
        assert matcher
        assert stream
        slots_before = matcher.slot_count
        slots = matcher.match(changed.digests)
        is_new = slots >= slots_before
        firsts = np.flatnonzero(is_new)[np.unique(slots[is_new], return_index=True)[1]]
        stream.add(changed.content, changed.indexes[firsts], changed.blocks[firsts], changed.digests[firsts])
        self._seen.note_changed(changed.blocks, slots, len(firsts))

    def _make_matcher(self) -> Matcher:
        """Return a matcher that knows every block whose digest was loaded."""
        table = self._table
        # Whatever may become a source later in the run: new slots get the numbers behind those of now.
        table.add_sources(np.flatnonzero(table.index.links.depths[table.entries] >= 0))
        loaded = np.flatnonzero(table.is_loaded)
        matcher = Matcher(table.digests, table.slot_count)
        firsts, counts = table.present_runs(loaded)
        for first, count in zip(firsts.tolist(), counts.tolist(), strict=True):
            matcher.learn(first, count)
        return matcher

    def _open_anchors(self) -> AnchorCache:
        """Open what this host knows of the image's anchors, or learn it from the image itself, and number its records."""
        source, table, options = self._source, self._table, self._options
        is_sequential = source.is_sequential
        content_bytes = (
            count_run_blocks(self._base_runs) * self._block_bytes if is_sequential else count_span_bytes(self._extents)
        )
        anchors, is_new = open_anchor_cache(
            self._anchors_path,
            self._repository.config.repository_id,
            block_bytes=self._block_bytes,
            content_bytes=content_bytes,
            budget_bytes=options.delta_budget_bytes,
        )
        base_records = table.used_records(self._base_runs)
        is_known = not is_new and anchors.knows_most_of(table.record_ids[base_records])
        if len(base_records) and not is_known and not is_sequential:
            anchors.learn_image(source, self._extents, self._base_runs, table, progress=self._progress)
        anchors.add_records(table)
        return anchors

    def _make_finder(self, matcher: Matcher, anchors: AnchorCache) -> SourceFinder:
        source, table, options = self._source, self._table, self._options
        self._anchors = anchors
        self._contents = ContentCache(self._content_path, options.cache_budget_bytes // 2)
        limits = BEST_LIMITS if options.delta == "best" or options.level >= LEVELS["best"] else SourceLimits()
        seen, base_runs, first_new_slot = self._seen, self._base_runs, matcher.slot_count
        return SourceFinder(
            table,
            anchors,
            self._contents,
            RecordReader(self._repository, table, find_delta_decoder),
            self._open_expanded(),
            source,
            self._make_relatives(self._contents),
            base_runs=base_runs,
            referenced=lambda: _join_stored(base_runs, seen.changed_runs, first_new_slot),
            first_new_slot=first_new_slot,
            record_blocks=count_record_blocks(self._block_bytes),
            block_bytes=self._block_bytes,
            block_key=self._repository.keys.block,
            digests=lambda: matcher.digests,
            cost=DeltaCost(table, self._base_runs, options.max_delta_cost),
            limits=replace(limits, depth=options.max_depth),
        )

    def _make_relatives(self, contents: ContentCache) -> Relatives:
        return Relatives(
            self._anchors_path,
            self._repository.config.repository_id,
            self._table,
            contents,
            block_bytes=self._block_bytes,
            budget_bytes=self._options.delta_budget_bytes,
        )

    def _open_expanded(self) -> ExpandedRecords:
        expanded = ExpandedRecords(self._content_path, self._block_bytes, count_record_blocks(self._block_bytes))
        self._stack.callback(expanded.close)
        return expanded

    @property
    def _anchors_path(self) -> str | None:
        cache, repository_id = self._cache, self._repository.config.repository_id
        return None if cache is None else cache.anchors_path(repository_id, self._image)

    @property
    def _content_path(self) -> str | None:
        cache, repository_id = self._cache, self._repository.config.repository_id
        return None if cache is None else cache.content_path(repository_id, self._image)


def _join_stored(base_runs: Runs, changed_runs: Runs, first_new_slot: int) -> Runs:
    """Return the runs of a new map, as far as it is known, that refer to what was stored before."""
    runs = join_runs([base_runs, changed_runs])
    return runs[runs["slot"] < first_new_slot]
