# SPDX-License-Identifier: Apache-2.0
"""The delta sources of one backup: opened with what this host keeps of earlier backups, which is updated at the end."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from msgspec.structs import replace

from deltaimg.arrays import Digests, count_run_blocks
from deltaimg.delta.encode import count_record_blocks
from deltaimg.delta.match import Matcher
from deltaimg.delta.registry import find_delta_decoder
from deltaimg.delta.sources import BEST_LIMITS, SourceLimits, Sources
from deltaimg.engine.backup.cache_folder import CacheFolder, ImageCache
from deltaimg.engine.backup.context import BackupContext
from deltaimg.engine.backup.delta_sources.anchor_cache import AnchorCache, AnchorFile, open_anchor_cache
from deltaimg.engine.backup.delta_sources.base_image import BaseImage
from deltaimg.engine.backup.delta_sources.choose import Choice, SourceChooser
from deltaimg.engine.backup.delta_sources.content_cache import ContentCache
from deltaimg.engine.backup.delta_sources.expanded_records import ExpandedRecords
from deltaimg.engine.backup.delta_sources.fetch import SourceFetcher
from deltaimg.engine.backup.delta_sources.permitted import PermittedSources
from deltaimg.engine.backup.delta_sources.similar_images import SimilarImages
from deltaimg.engine.backup.delta_sources.source_records import NewRecord, SourceRecords
from deltaimg.engine.scan import count_span_bytes
from deltaimg.format.sources import SourceTable
from deltaimg.ids import RecordNumbers
from deltaimg.options.backup import LEVELS
from deltaimg.repo.record_reader import RecordReader


class DeltaSources(Struct, frozen=True):
    """Chooses delta sources (one thread) and fetches them (any thread); a context manager around its files."""

    _context: BackupContext
    _chooser: SourceChooser
    _permitted: PermittedSources
    _fetcher: SourceFetcher
    _anchors: AnchorCache
    _contents: ContentCache
    _expanded: ExpandedRecords
    _base_image: BaseImage

    def __enter__(self) -> DeltaSources:
        return self

    def __exit__(self, *_: object) -> None:
        self._expanded.close()
        self._base_image.close()

    def note_changed(self, blocks: npt.NDArray[np.uint64]) -> None:
        """Note blocks of the image that were found changed; from the thread that chooses."""
        self._fetcher.image_blocks.note_changed(blocks)

    def choose(self, content: memoryview, record: NewRecord) -> Choice | None:
        """Number the next new record and return what to encode it against; None for a literal."""
        return self._chooser.choose(content, record)

    def settle(self) -> None:
        """From now on choose only sources that a restore decodes anyway."""
        self._permitted.settle()

    def fetch(self, choice: Choice) -> Sources | None:
        """Return the bytes of what was chosen, without what cannot be read; None if nothing can."""
        return self._fetcher.fetch(choice.slots)

    def keep(self, record_id: bytes, choice: Choice, content: memoryview) -> None:
        """Keep the content of a new delta record for the next backup, if that could not afford to decode it."""
        self._fetcher.keep(record_id, choice.depth, content)

    def find_used(self, choice: Choice, table: SourceTable | None) -> RecordNumbers:
        """Return those of the chosen records that a record is encoded against in the end; `table` is None for a literal."""
        return self._chooser.find_used(choice, table)

    def note_gain(self, choice: Choice, gain: float) -> None:
        """Note which share of a literal (0 to 1) a delta saved; from the thread that chooses."""
        self._chooser.note_gain(choice, gain)

    def begin_keeping(self, new_ids: Digests, new_slot_counts: npt.NDArray[np.int64]) -> AnchorFile | None:
        """Begin to write the anchors for the next backup, once there are all records of this one; None if nothing is kept."""
        cache = find_image_cache(self._context)
        if cache is None:
            return None
        return self._anchors.begin_saving(cache.anchors_path, cache.repository_id, new_ids, new_slot_counts)

    def keep_for_next_run(self, anchors: AnchorFile) -> None:
        """Keep the anchors, and trim the cache. Without it backups are slower or larger, so a failure is only a warning."""
        cache = find_image_cache(self._context)
        if cache is None:
            return
        repository, failure = self._context.repository, self._contents.failure
        try:
            cache.folder.note_location(cache.repository_id, repository.objects.absolute_location)
            anchors.put()
        except OSError as error:
            failure = error
        cache.folder.trim(self._context.options.cache_budget_bytes)
        if failure is not None:
            self._context.progress.warn(
                f"the cache in {cache.folder.path} is not up to date, which slows the next backup: {failure.strerror}"
            )


def find_image_cache(context: BackupContext) -> ImageCache | None:
    """Return what this host keeps of the image; None if it keeps nothing."""
    folder = context.options.cache_folder
    if folder is None:
        return None
    return CacheFolder(folder).open_image(context.repository.config.repository_id, context.request.image)


def load_anchors(context: BackupContext) -> AnchorCache:
    """Load the image's anchors as this host kept them, or read the image to find them; number their records."""
    source, table, base_runs = context.source, context.base.table, context.base.runs
    cache = find_image_cache(context)
    stored_bytes = count_run_blocks(base_runs) * context.block_bytes
    anchors, is_new = open_anchor_cache(
        None if cache is None else cache.anchors_path,
        context.repository.config.repository_id,
        block_bytes=context.block_bytes,
        content_bytes=stored_bytes if source.is_sequential else count_span_bytes(context.content),
        budget_bytes=context.options.delta_budget_bytes,
    )
    base_records = table.used_records(base_runs)
    is_up_to_date = not is_new and anchors.has_most_of(table.record_ids[base_records])
    # With tracking the image would have to be read as a whole: that waits for the next full scan.
    can_learn = not source.is_sequential and not context.is_tracked
    if len(base_records) and not is_up_to_date and can_learn:
        anchors.learn_image(source, context.to_read, base_runs, table, progress=context.progress)
    anchors.add_records(table)
    return anchors


def open_delta_sources(
    context: BackupContext, anchors: AnchorCache, matcher: Matcher, permitted: PermittedSources
) -> DeltaSources:
    """Return the delta sources of a backup.

    Args:
        matcher: has the digests of all slots; new records begin after the last of them.
    """
    options, table, block_bytes = context.options, context.base.table, context.block_bytes
    cache, record_blocks = find_image_cache(context), count_record_blocks(context.block_bytes)
    # A write-only host keeps no content of earlier backups: it cannot read that elsewhere, either.
    keeps_content = cache is not None and not context.repository.only_writes
    content_folder = cache.content_path if cache is not None and keeps_content else None
    contents = ContentCache(content_folder, options.cache_budget_bytes // 2)
    expanded = ExpandedRecords(content_folder, block_bytes, record_blocks)
    records = SourceRecords(table, matcher.slot_count, record_blocks)
    reader = RecordReader(context.repository, table, find_delta_decoder, verifies_ids=True)
    base_image = BaseImage.open(context)
    fetcher = SourceFetcher(context, records, reader, matcher, contents, expanded, base_image)
    similar_images = SimilarImages(cache, table, block_bytes, options.delta_budget_bytes)
    limits = BEST_LIMITS if options.delta == "best" or options.level >= LEVELS["best"] else SourceLimits()
    limits = replace(limits, depth=options.max_depth)
    chooser = SourceChooser(context, records, anchors, similar_images, fetcher, limits, permitted)
    return DeltaSources(context, chooser, permitted, fetcher, anchors, contents, expanded, base_image)
