# SPDX-License-Identifier: Apache-2.0
"""What a backup would store: the image is read and compared, and nothing is written but a reader's lock.

How small new content becomes is not tried: that takes as long as storing it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime

from deltaimg.engine.backup.base import Base, choose_block_bytes, load_other_content, open_base
from deltaimg.engine.backup.changed_blocks import ChangedBlocks, take_changed
from deltaimg.engine.backup.deduplicator import learn_stored_blocks
from deltaimg.engine.backup.new_map import NewMap
from deltaimg.engine.backup.option_checks import check_options
from deltaimg.engine.backup.source_checks import (
    check_container,
    check_length_so_far,
    check_size,
    check_time,
    check_unchanged,
    check_use,
    count_total_bytes,
)
from deltaimg.engine.progress import NoProgress, Progress, stage
from deltaimg.engine.scan import Scanner
from deltaimg.format.manifest import Manifest, Statistics
from deltaimg.image.extents import DATA
from deltaimg.image.source import ImageSource
from deltaimg.model import Extent
from deltaimg.options.backup import BackupOptions
from deltaimg.repo.lock import ReaderLock
from deltaimg.repo.repository import Repository
from deltaimg.repo.selector import check_image_name


@dataclass(frozen=True, slots=True)
class BackupForecast:
    """What the next snapshot would be."""

    base: Manifest | None
    """Of the snapshot that it would be compared with, None for a full one."""
    statistics: Statistics
    """All but what would be stored, which is 0 here."""
    unreadable: tuple[Extent, ...]
    """What could not be read, ascending and apart."""


def forecast_backup(
    repository: Repository,
    source: ImageSource,
    image: str,
    options: BackupOptions | None = None,
    *,
    progress: Progress | None = None,
) -> BackupForecast:
    """Compare `source` with the newest snapshot of `image`, and with all that is stored; raises as `back_up`."""
    options, progress = options or BackupOptions(), progress or NoProgress()
    check_image_name(image)
    check_options(options)
    now = datetime.now(UTC)
    with ReaderLock(repository, f"dry run of a backup of image '{image}'", now):
        started_s = time.monotonic()
        with stage(progress, "loading the base"):
            base = open_base(repository, image, progress)
        check_time(base.newest, options, now)
        check_use(source, options)
        check_size(source, base.newest, options, progress)
        check_container(source, base.newest, options)
        block_bytes = choose_block_bytes(base.newest, image, options.block_bytes)
        new_map = _compare(repository, source, base, block_bytes, options, progress)
        check_size(source, base.newest, options, progress)
        check_unchanged(source, options, None)
        size_bytes = source.size_bytes or 0
        runs = new_map.overlay(base.runs, size_bytes)
        statistics = new_map.summarise(runs, base.runs, size_bytes, time.monotonic() - started_s)
        return BackupForecast(base.manifest, statistics, source.unreadable)


def _compare(
    repository: Repository,
    source: ImageSource,
    base: Base,
    block_bytes: int,
    options: BackupOptions,
    progress: Progress,
) -> NewMap:
    """Scan the image, and match what is not as in the base with all that is stored."""
    load_other_content(base.table, block_bytes, options.match_budget_bytes, progress)
    matcher = learn_stored_blocks(base.table)
    extents = source.extents().without_base(base.manifest.size_bytes if base.manifest else 0).align(block_bytes)
    to_read, new_map = extents.find(DATA), NewMap(extents, block_bytes)
    scanner = Scanner(
        source,
        block_key=repository.keys.block,
        block_bytes=block_bytes,
        base_runs=base.runs,
        base_digests=base.table.digests,
        workers=options.workers,
    )
    done_bytes = 0
    with stage(progress, "comparing", count_total_bytes(source, to_read, options)):
        for span in scanner.scan(to_read):
            new_map.note_span(span)
            if span.content is not None:
                changed: ChangedBlocks = take_changed(span, span.content)
                slots_before = matcher.slot_count
                slots = matcher.match(changed.digests)
                new_map.note_changed(changed.blocks, slots, matcher.slot_count - slots_before)
                scanner.release(span)
            progress.advance(span.read_bytes)
            done_bytes += span.read_bytes
            check_length_so_far(source, done_bytes, options)
    return new_map
