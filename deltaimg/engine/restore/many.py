# SPDX-License-Identifier: Apache-2.0
"""Several snapshots restored in one run, each to a target: open all targets, see whether all fits, write one after another.

Always  nothing is written before every target is open, and none where a file system is known to be too small for all of it.
Always  with `stops_at_failure` unset, what is wrong with one snapshot or target costs the others nothing.

Memory  that of one restore; two descriptors a target.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime

from msgspec import Struct

from deltaimg.engine.content.snapshot import SnapshotContent
from deltaimg.engine.progress import NoProgress, Progress, SharedStage, stage
from deltaimg.engine.restore.run import RestoreResult, write_snapshot
from deltaimg.errors import DeltaimgError, ImageError, TargetTooSmall
from deltaimg.format.manifest import Manifest
from deltaimg.image.allocation import reserves_blocks
from deltaimg.image.open_target import open_target
from deltaimg.image.target import ImageTarget
from deltaimg.posix import allow_many_files
from deltaimg.repo.index import LoadedIndex, load_index
from deltaimg.repo.lock import ReaderLock
from deltaimg.repo.repository import Repository
from deltaimg.repo.snapshots import is_of_one_snapshot


class RestoredMany(Struct, frozen=True):
    """What was written, and what could not be and why, by target, in the order in which they were given."""

    results: dict[str, RestoreResult]
    failed: dict[str, DeltaimgError]


class _Waiting(Struct):
    """A snapshot whose target is open."""

    manifest: Manifest
    target: ImageTarget
    data_bytes: int = 0


def restore_all(
    repository: Repository,
    manifests: Mapping[str, Manifest],
    *,
    is_forced: bool = False,
    keep_going: bool = False,
    is_synced: bool = False,
    stops_at_failure: bool = True,
    on_restored: Callable[[str, RestoreResult], None] = lambda _target, _result: None,
    progress: Progress | None = None,
) -> RestoredMany:
    """Write several snapshots, each to a target, one after another; all targets are opened before anything is written.

    Args:
        manifests: what is written, by target. on_restored: called with each target once it is complete.
        stops_at_failure: raise what is wrong with a snapshot or a target; otherwise it is returned, and the others are written.

    Raises:
        As `restore`. What was restored before that stays; of the others nothing is left behind. TargetTooSmall: a file system
        has less room than all snapshots together need; nothing was written.
    """
    progress, waiting, failed = progress or NoProgress(), dict[str, _Waiting](), dict[str, DeltaimgError]()
    results: dict[str, RestoreResult] = {}
    allow_many_files()
    with ReaderLock(repository, f"restore of {len(manifests)} snapshots", datetime.now(UTC)) as lock:
        try:
            for path, manifest in manifests.items():
                target = open_target(path, manifest.size_bytes, is_forced=is_forced, is_synced=is_synced)
                waiting[path] = _Waiting(manifest, target)
            with stage(progress, "planning"):
                index = load_index(repository)
                for path, each in list(waiting.items()):
                    try:
                        each.data_bytes = _count_data(repository, each.manifest, index)
                    except DeltaimgError as error:
                        _note(error, path, failed, lock, stops_at_failure=stops_at_failure)
                        waiting.pop(path).target.abort()
            _check_room(waiting.values(), progress)
            total_bytes = sum(each.data_bytes for each in waiting.values())
            with stage(progress, f"restoring {len(waiting)} image{'s' * (len(waiting) != 1)}", total_bytes):
                while waiting:
                    path = next(iter(waiting))
                    each = waiting.pop(path)
                    try:
                        results[path] = write_snapshot(
                            repository,
                            lock,
                            each.manifest,
                            each.target,
                            index=index,
                            keep_going=keep_going,
                            progress=SharedStage(progress, each.data_bytes),
                        )
                    except DeltaimgError as error:
                        _note(error, path, failed, lock, stops_at_failure=stops_at_failure)
                    else:
                        on_restored(path, results[path])
        finally:
            for each in waiting.values():
                each.target.abort()
    return RestoredMany(results, {path: failed[path] for path in manifests if path in failed})


def _note(
    error: DeltaimgError, path: str, failed: dict[str, DeltaimgError], lock: ReaderLock, *, stops_at_failure: bool
) -> None:
    """Note what is wrong with one snapshot or target; raise any other error, and LockLost where a prune may have caused it."""
    lock.check()
    if stops_at_failure or not (isinstance(error, ImageError) or is_of_one_snapshot(error)):
        raise error
    failed[path] = error


def _count_data(repository: Repository, manifest: Manifest, index: LoadedIndex) -> int:
    """Return how many bytes a restore writes: those of the image that are neither hole nor zero."""
    return min(SnapshotContent(repository, manifest, index).data_bytes, manifest.size_bytes)


class _FileSystem(Struct):
    """The room in a file system as files are written to it, each of which may then free what it replaces."""

    folder: str
    free_bytes: int
    is_exact: bool
    """Whether what does not fit by count cannot fit: no block is compressed or shared there."""
    needed_bytes: int = 0
    freed_bytes: int = 0
    short_bytes: int = 0

    def add(self, data_bytes: int, replaced_bytes: int) -> None:
        """Count a file that is written, and then replaces one."""
        self.needed_bytes += data_bytes
        self.short_bytes = max(self.short_bytes, self.needed_bytes - self.freed_bytes - self.free_bytes)
        self.freed_bytes += replaced_bytes


def _check_room(waiting: Iterable[_Waiting], progress: Progress) -> None:
    """Raise TargetTooSmall where all that is to be written cannot fit; warn where it may not."""
    found: dict[int, _FileSystem] = {}
    for each in waiting:
        folder, free_bytes = each.target.folder, each.target.find_free_bytes()
        if folder is None or free_bytes is None:
            continue
        device = os.stat(folder).st_dev
        if device not in found:
            found[device] = _FileSystem(folder, free_bytes, reserves_blocks(folder))
        found[device].add(each.data_bytes, _find_allocated(each.target.path))
    for system in found.values():
        if system.short_bytes <= 0:
            continue
        problem = f"{system.needed_bytes} bytes will be written, and {system.free_bytes} are free there"
        if system.is_exact:
            raise TargetTooSmall(system.folder, f"{problem}: nothing was written")
        progress.warn(f"{system.folder}: {problem}")


def _find_allocated(path: str) -> int:
    """Return how many bytes a file takes on the disk that is replaced; 0 where there is none."""
    try:
        return os.stat(path).st_blocks * 512
    except OSError:
        return 0
