# SPDX-License-Identifier: Apache-2.0
"""What a backup would store: the image is read and compared, and nothing is written but a reader's lock.

How small new content becomes is not tried: that takes as long as storing it.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

from msgspec import Struct

from deltaimg.engine.backup.base import load_other_content, open_base
from deltaimg.engine.backup.changed_blocks import take_changed
from deltaimg.engine.backup.comparison import compare_with_base
from deltaimg.engine.backup.context import BackupContext, make_context
from deltaimg.engine.backup.deduplicator import learn_stored_blocks
from deltaimg.engine.backup.option_checks import check_options
from deltaimg.engine.backup.request import BackupRequest
from deltaimg.engine.backup.source_checks import (
    check_container,
    check_size,
    check_time,
    check_unchanged,
    check_use,
    warn_of_new_size,
)
from deltaimg.engine.progress import NoProgress, Progress, stage
from deltaimg.engine.scan import ScannedSpan
from deltaimg.format.manifest import FreeSpaceSkipped, Manifest, Statistics, Tracking
from deltaimg.image.source import ImageSource
from deltaimg.model import Extent
from deltaimg.options.backup import BackupOptions
from deltaimg.repo.lock import ReaderLock
from deltaimg.repo.repository import Repository
from deltaimg.repo.selector import check_image_name
from deltaimg.tracking.interface import Tracker


class BackupForecast(Struct, frozen=True):
    """What the next snapshot would be."""

    base: Manifest | None
    """Of the snapshot that it would be compared with, None for a full one."""
    statistics: Statistics
    """All but what would be stored, which is 0 here."""
    unreadable: tuple[Extent, ...]
    """What could not be read, ascending and apart."""
    tracking: Tracking | None
    """What was not read, where change tracking was asked for."""
    free_space: FreeSpaceSkipped | None
    """What would be left out as free, where that was asked for."""


def forecast_backup(
    repository: Repository,
    source: ImageSource,
    image: str,
    options: BackupOptions | None = None,
    *,
    progress: Progress | None = None,
    is_stopped: bool = False,
    tracker: Tracker | None = None,
) -> BackupForecast:
    """Compare `source` with the newest snapshot of `image`, and with all that is stored; raises as `back_up`.

    Args:
        is_stopped: what writes to it was stopped by the pre-freeze command. tracker: claims to know what changed.
    """
    options, progress = options or BackupOptions(), progress or NoProgress()
    check_image_name(image)
    check_options(options)
    now = datetime.now(UTC)
    with ReaderLock(repository, f"dry run of a backup of image '{image}'", now):
        started_s = time.monotonic()
        with stage(progress, "loading the base"):
            base = open_base(repository, repository.list_snapshots(image), progress)
        check_time(base.newest, options, now, progress)
        check_use(source, options, is_stopped=is_stopped)
        check_size(source, base.newest, options, progress)
        check_container(source, base.newest, options)
        request = BackupRequest(repository, source, image, options, progress, lambda: now, tracker=tracker)
        context = make_context(request, base)
        _match_changes(context)
        check_size(source, base.newest, options, progress)
        check_unchanged(source, options, None)
        warn_of_new_size(source, progress)
        size_bytes = source.size_bytes or 0
        runs = context.new_map.overlay(base.runs, size_bytes)
        statistics = context.new_map.summarise(runs, base.runs, size_bytes, time.monotonic() - started_s)
        tracking = context.tracking.describe() if context.tracking else None
        return BackupForecast(base.manifest, statistics, source.unreadable, tracking, context.free_space)


def _match_changes(context: BackupContext) -> None:
    """Scan the image, and match what is not as in the base with all that is stored."""
    table = context.base.table
    load_other_content(
        table,
        context.block_bytes,
        context.options.match_budget_bytes,
        context.progress,
        only_own=context.repository.only_writes,
    )
    matcher = learn_stored_blocks(table)

    def match(span: ScannedSpan, content: memoryview) -> None:
        changed = take_changed(span, content)
        slots_before = matcher.slot_count
        slots = matcher.match(changed.digests)
        context.new_map.note_changed(changed.blocks, slots, matcher.slot_count - slots_before)

    compare_with_base(context, "comparing", match)
