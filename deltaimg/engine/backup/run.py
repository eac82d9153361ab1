# SPDX-License-Identifier: Apache-2.0
"""One backup, stage by stage: open base, scan, match, order, choose delta sources, encode, pack, write map, commit.

    open base               base.py            the newest snapshot of the image, resolved and verified
    scan                    engine/scan.py     read what the source says holds data, and compare it with the base
    match                   deduplicator.py    refer to blocks that are stored already
    order                   block_order.py     gather changed blocks by delta depth
    choose delta sources    delta_sources/     what each new record is encoded against
    encode, pack            record_stream.py   records on all cores, in order into packs
    write map               new_snapshot.py    a map layer of what changed
    commit                  commit.py          the manifest

Always  the manifest is stored last, once all that it needs is durable: until then the repository is as it was.
Always  what was stored before an interruption is found and used by the next backup.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from deltaimg.arrays import Runs
from deltaimg.engine.backup.base import Base, open_base
from deltaimg.engine.backup.block_check import BlockCheck
from deltaimg.engine.backup.changes import Changes
from deltaimg.engine.backup.comparison import compare_with_base
from deltaimg.engine.backup.context import BackupContext, make_context
from deltaimg.engine.backup.new_snapshot import RunStart, write_map
from deltaimg.engine.backup.option_checks import check_options
from deltaimg.engine.backup.request import BackupRequest, make_snapshot_id
from deltaimg.engine.backup.reread_sample import find_changed_piece
from deltaimg.engine.backup.source_checks import (
    check_container,
    check_size,
    check_time,
    check_unchanged,
    check_use,
    warn_of_new_size,
)
from deltaimg.engine.commit import commit_snapshot
from deltaimg.engine.progress import NoProgress, Progress, stage
from deltaimg.engine.roster_changes import record_committed, warn_of_disagreements, warn_of_exchange
from deltaimg.errors import StoreError
from deltaimg.format.manifest import SNAPSHOTS, Group, Manifest
from deltaimg.freeze.freeze import PointInTime
from deltaimg.image.source import ImageSource
from deltaimg.options.backup import BackupOptions
from deltaimg.repo.leftovers import remove_leftovers
from deltaimg.repo.lock import ImageLock
from deltaimg.repo.pack_writer import PackWriter
from deltaimg.repo.repository import Repository, SnapshotRef
from deltaimg.repo.rosters import list_under_lock
from deltaimg.repo.selector import check_image_name
from deltaimg.tracking.interface import Tracker


def back_up(
    repository: Repository,
    source: ImageSource,
    image: str,
    options: BackupOptions | None = None,
    *,
    progress: Progress | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    point_in_time: PointInTime | None = None,
    tracker: Tracker | None = None,
    group: Group | None = None,
    snapshot: str | None = None,
) -> Manifest:
    """Store `source` as the newest snapshot of `image` and return its manifest.

    Args:
        point_in_time: of what the source is read, where the image was frozen. tracker: claims to know what changed.
        group: of which the snapshot is a copy of a member; `group` makes new ones. snapshot: its id, if something
        has it already.

    Raises:
        UsageError: a name, a tag or a block size that is not valid. ImageError: the source cannot be read.
        ImageInUse, SourceChanged, SourceShrank: see `source_checks`; nothing was committed.
        FreezeLost, HookFailed: see `PointInTime.end_reading`; nothing was committed.
        RepositoryLocked: another process works on the image.
        LockLost: another process considered this run dead; nothing was committed.
        StoreError: the repository cannot keep it; nothing was committed.
    """
    options = options or BackupOptions()
    check_image_name(image)
    check_options(options)
    start = RunStart.now(clock)
    progress, snapshot = progress or NoProgress(), snapshot or make_snapshot_id()
    request = BackupRequest(
        repository, source, image, options, progress, clock, point_in_time, tracker, group, snapshot
    )
    with lock_image(request) as lock:
        manifest = store_content(request, lock, start, commit)
        if tracker is not None:
            # Nothing that was kept of the base is open any more.
            tracker.settle(manifest.id)
        return manifest


@contextmanager
def lock_image(request: BackupRequest) -> Iterator[ImageLock]:
    """Hold the lock of an image, and warn of what is wrong with its snapshots; raises RepositoryLocked."""
    repository, image, now = request.repository, request.image, request.clock()
    with ImageLock(repository, image, f"backup of {request.source.path}", now) as lock:
        # A name that the store cannot keep is refused now, not at the end.
        repository.objects.make_folder(SNAPSHOTS + image)
        remove_leftovers(repository)
        warn_of_exchange(repository, request.progress)
        warn_of_disagreements(repository, image, request.clock(), request.progress, lock)
        yield lock


Commit = Callable[[BackupRequest, ImageLock, Manifest], None]
"""What is done with a manifest once all that it needs is stored."""


def store_content(request: BackupRequest, lock: ImageLock, start: RunStart, commit: Commit) -> Manifest:
    """Store all that a snapshot needs, and return its manifest; raises as `back_up`.

    Args:
        lock: of the image.
    """
    source, options, progress = request.source, request.options, request.progress
    with stage(progress, "loading the base"):
        base = open_base(request.repository, list_under_lock(request.repository, lock), progress)
    check_time(base.newest, options, start.time, progress)
    is_stopped = request.point_in_time is not None and request.point_in_time.has_stopped_writers
    is_live = check_use(source, options, is_stopped=is_stopped)
    check_size(source, base.newest, options, progress)
    container = check_container(source, base.newest, options)
    context = make_context(request, base)
    with _open_writer(request, base, lock) as writer, Changes(context, writer) as changes:
        with writer.index_if_interrupted(progress.warn, except_for=(StoreError,), even_if_full=True):
            compare_with_base(context, "backing up", changes.add)
            with stage(progress, "storing what is left"):
                changes.finish()
            if source.is_sequential:
                check_size(source, base.newest, options, progress)
            runs = context.new_map.overlay(base.runs, source.size_bytes or 0)
            is_live |= check_unchanged(source, options, _reread_sample(context, runs))
            warn_of_new_size(source, progress)
            if request.point_in_time is not None:
                request.point_in_time.end_reading()
            with stage(progress, "storing what is left"):
                writer.finish()
        with stage(progress, "committing"):
            manifest = write_map(context, start, runs, writer.stored_bytes, is_live=is_live, container=container)
            commit(request, lock, manifest)
        with stage(progress, "updating the cache"):
            changes.keep_for_next_run()
    return manifest


def commit(request: BackupRequest, lock: ImageLock, manifest: Manifest) -> None:
    """Store the manifest; what the next backup needs to track changes is kept before."""
    tracker = request.tracker
    if tracker is not None and (problem := tracker.keep(manifest.id)):
        request.progress.warn(f"{request.source.path}: {problem}")
    commit_snapshot(request.repository, lock, manifest)
    record_committed(request.repository, lock, request.clock(), request.progress, SnapshotRef.of(manifest))


def _open_writer(request: BackupRequest, base: Base, lock: ImageLock) -> PackWriter:
    now_us = base.table.index.order_after(request.clock)
    return PackWriter(request.repository, now_us, check_lock=lock.check)


def _reread_sample(context: BackupContext, runs: Runs) -> int | None:
    """Return where the source now reads otherwise than it did, if a sample of it does."""
    if context.source.is_sequential:
        return None
    check = BlockCheck(
        context.source, runs, context.base.table.digests, context.repository.keys.block, context.block_bytes
    )
    return find_changed_piece(check, context.to_read, random.Random())
