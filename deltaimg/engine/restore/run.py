# SPDX-License-Identifier: Apache-2.0
"""One restore: resolve, plan, fetch, verify, write, and give the target its name.

Always  a file appears under its name only when every block of it was verified; with `keep_going` it appears with holes where
        records are damaged, and the result lists them.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

import numpy as np
from msgspec import Struct

from deltaimg.engine.content.snapshot import SnapshotContent
from deltaimg.engine.pipeline import OrderedPool, count_workers
from deltaimg.engine.progress import NoProgress, Progress, stage
from deltaimg.errors import ContentDamaged, IntegrityError, ObjectNotFound
from deltaimg.format.manifest import Manifest
from deltaimg.format.pack import pack_name
from deltaimg.ids import RecordNumbers
from deltaimg.image.open_target import open_target
from deltaimg.image.target import ImageTarget
from deltaimg.model import MIB, DamagedExtent
from deltaimg.repo.index import LoadedIndex, load_index
from deltaimg.repo.lock import ReaderLock
from deltaimg.repo.repository import Repository

_STREAM_SPAN_BYTES = 4 * MIB


class RestoreResult(Struct, frozen=True):
    """What a restore wrote, in bytes, and the extents that it could not. `plan_s` passed before the first byte was read.

    `tail_bytes` follow the image on a larger device, and were left as they were.
    """

    manifest: Manifest
    data_bytes: int
    read_bytes: int
    plan_s: float
    duration_s: float
    damage: tuple[DamagedExtent, ...]
    tail_bytes: int


def restore(
    repository: Repository,
    manifest: Manifest,
    target_path: str,
    *,
    is_forced: bool = False,
    keep_going: bool = False,
    is_synced: bool = False,
    progress: Progress | None = None,
    workers: int | None = None,
) -> RestoreResult:
    """Write a snapshot to `target_path` as a sparse image.

    Raises:
        ImageError: the target cannot be used; see `open_target`. SnapshotError, IntegrityError, StoreError: the snapshot
        cannot be read. LockLost: others considered this run dead, and something was deleted meanwhile. Nothing is left behind
        at the target, unless it is a device or a stream.
    """
    with ReaderLock(repository, f"restore of {manifest.label}", datetime.now(UTC)) as lock:
        return write_snapshot(
            repository,
            lock,
            manifest,
            open_target(target_path, manifest.size_bytes, is_forced=is_forced, is_synced=is_synced),
            keep_going=keep_going,
            progress=progress or NoProgress(),
            workers=workers,
        )


def write_snapshot(
    repository: Repository,
    lock: ReaderLock,
    manifest: Manifest,
    target: ImageTarget,
    *,
    index: LoadedIndex | None = None,
    keep_going: bool = False,
    progress: Progress,
    workers: int | None = None,
) -> RestoreResult:
    """Write a snapshot to a target and commit it, or abort it where that fails; raises as `restore`.

    Args:
        index: of the repository, where it is loaded already.
    """
    started = time.monotonic()
    try:
        with stage(progress, "planning"):
            content = SnapshotContent(repository, manifest, load_index(repository) if index is None else index)
        planned = time.monotonic()
        _warn_of_shortage(target, content.data_bytes, progress)
        if target.is_sequential:
            read_bytes, damage = _write_in_order(
                content, target, keep_going=keep_going, progress=progress, workers=workers
            )
        else:
            read_bytes, damage = _write_anywhere(
                content, target, keep_going=keep_going, progress=progress, workers=workers
            )
        if damage:
            lock.check()
        with stage(progress, "waiting for the disk"):
            target.commit()
    except BaseException:
        target.abort()
        raise
    for warning in target.warnings:
        progress.warn(warning)
    return RestoreResult(
        manifest,
        data_bytes=content.data_bytes,
        read_bytes=read_bytes,
        plan_s=round(planned - started, 3),
        duration_s=round(time.monotonic() - started, 3),
        damage=damage,
        tail_bytes=(target.device_bytes or manifest.size_bytes) - manifest.size_bytes,
    )


def _warn_of_shortage(target: ImageTarget, data_bytes: int, progress: Progress) -> None:
    """Warn early of what may not fit. It is no error: a file system that compresses may hold more than it has room for."""
    free_bytes = target.find_free_bytes()
    if free_bytes is not None and free_bytes < data_bytes:
        progress.warn(f"{target.path}: {data_bytes} bytes will be written, and {free_bytes} are free there")


def _write_anywhere(
    content: SnapshotContent, target: ImageTarget, *, keep_going: bool, progress: Progress, workers: int | None
) -> tuple[int, tuple[DamagedExtent, ...]]:
    """Write records in the order of the packs, each block to its offsets."""
    for extent in content.zero_extents():
        target.clear(extent.start, extent.length)
    target.reserve(content.data_extents())
    plan = content.plan(can_read_back=True)
    damage: list[DamagedExtent] = []
    with stage(progress, "restoring", plan.decoded_bytes):
        try:
            for walked in content.walk(
                plan,
                target.write_ranges,
                read_back=target.read_back,
                keep_going=keep_going,
                workers=workers,
                spool_folder=target.folder,
            ):
                damage += walked.damage
                progress.advance(walked.decoded_bytes)
        except (IntegrityError, ObjectNotFound) as error:
            raise name_damage(content, error) from error
    damage.sort(key=lambda extent: extent.start)
    for extent in damage:
        target.clear(extent.start, extent.length)
    return plan.read_bytes, tuple(damage)


def _write_in_order(
    content: SnapshotContent, target: ImageTarget, *, keep_going: bool, progress: Progress, workers: int | None
) -> tuple[int, tuple[DamagedExtent, ...]]:
    """Write a stream: spans of the image one after another, read ahead on all cores, over a network by more threads."""
    size_bytes = content.manifest.size_bytes
    ahead = max(workers or count_workers(), content.parallel_reads)

    def read(start: int) -> tuple[int, bytes, list[DamagedExtent]]:
        if keep_going:
            return start, *reader.read_what_is_left(start, _STREAM_SPAN_BYTES)
        return start, reader.read(start, _STREAM_SPAN_BYTES), []

    damage: list[DamagedExtent] = []
    with (
        content.open_in_order(progress=progress, workers=workers) as reader,
        OrderedPool(workers=ahead, window=ahead) as pool,
        stage(progress, "restoring", size_bytes),
    ):
        for start, data, damaged in pool.map(read, range(0, size_bytes, _STREAM_SPAN_BYTES)):
            target.write(start, memoryview(data))
            progress.advance(len(data))
            damage += damaged
    return size_bytes, tuple(damage)


def name_damage(content: SnapshotContent, error: IntegrityError | ObjectNotFound) -> ContentDamaged:
    """Return the error that lists the extents of the snapshot that cannot be read because of `error`."""
    if isinstance(error, ContentDamaged):
        return error
    table = content.table
    entries = table.index_rows(RecordNumbers(np.arange(table.record_count)))
    is_hit = np.array([pack_name(pack) == error.object_name for pack in table.index.packs], np.bool_)[entries["pack"]]
    if isinstance(error, IntegrityError):
        is_hit &= entries["offset"] == error.offset
    affected = content.dependents_of(RecordNumbers(np.flatnonzero(is_hit)).tolist())
    damage = [
        DamagedExtent(each.start, each.end, str(error)) for record in affected for each in content.extents_of(record)
    ]
    everything = DamagedExtent(0, content.manifest.size_bytes, str(error))
    return ContentDamaged(content.manifest.label, tuple(sorted(damage)) or (everything,))
