# SPDX-License-Identifier: Apache-2.0
"""Several snapshots restored in one run, each to a target: open all targets, see whether all fits, write one after another.

Always  nothing is written before every target is open, and none where a file system is known to be too small for all of it.
Always  with `stops_at_failure` unset, what is wrong with one snapshot or target costs the others nothing.

Memory  that of one restore; two descriptors a target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime

from msgspec import Struct

from deltaimg.engine.content.snapshot import SnapshotContent
from deltaimg.engine.progress import NoProgress, Progress, SharedStage, stage
from deltaimg.engine.restore.room import check_room
from deltaimg.engine.restore.run import RestoreResult, write_snapshot
from deltaimg.errors import DeltaimgError, ImageError
from deltaimg.format.manifest import Manifest
from deltaimg.image.open_target import open_target
from deltaimg.image.target import ImageTarget
from deltaimg.options.restore import RestoreOptions
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
    """A snapshot whose target is open, and how many bytes of data it has."""

    manifest: Manifest
    target: ImageTarget
    data_bytes: int = 0


def restore_all(
    repository: Repository,
    manifests: Mapping[str, Manifest],
    options: RestoreOptions,
    *,
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
    allow_many_files()
    progress = progress or NoProgress()
    with (
        ReaderLock(repository, f"restore of {len(manifests)} snapshots", datetime.now(UTC)) as lock,
        closing(_Run(repository, lock, options, progress, stops_at_failure=stops_at_failure)) as run,
    ):
        run.open_targets(manifests)
        with stage(progress, "planning"):
            index = load_index(repository)
            run.count_data(index)
        check_room(((each.target, each.data_bytes) for each in run.waiting.values()), progress)
        run.write_all(index, on_restored)
        return RestoredMany(run.results, {path: run.failed[path] for path in manifests if path in run.failed})


class _Run:
    """A restore of several snapshots: those that wait, by target, and what became of the others."""

    def __init__(
        self,
        repository: Repository,
        lock: ReaderLock,
        options: RestoreOptions,
        progress: Progress,
        *,
        stops_at_failure: bool,
    ) -> None:
        self._repository, self._lock, self._options, self._progress = repository, lock, options, progress
        self._stops_at_failure = stops_at_failure
        self.waiting: dict[str, _Waiting] = {}
        self.results: dict[str, RestoreResult] = {}
        self.failed: dict[str, DeltaimgError] = {}

    def open_targets(self, manifests: Mapping[str, Manifest]) -> None:
        """Open all targets; raises the error of the first that cannot be written."""
        forced, synced = self._options.is_forced, self._options.is_synced
        for path, manifest in manifests.items():
            target = open_target(path, manifest.size_bytes, is_forced=forced, is_synced=synced)
            self.waiting[path] = _Waiting(manifest, target)

    def count_data(self, index: LoadedIndex) -> None:
        """Find out how many bytes of data each snapshot has: what is neither hole nor zero."""
        for path, each in list(self.waiting.items()):
            with self._noting(path):
                content = SnapshotContent(self._repository, each.manifest, index)
                each.data_bytes = min(content.data_bytes, each.manifest.size_bytes)
            if path in self.failed:
                self.waiting.pop(path).target.abort()

    def write_all(self, index: LoadedIndex, on_restored: Callable[[str, RestoreResult], None]) -> None:
        """Write one after another."""
        count = len(self.waiting)
        total_bytes = sum(each.data_bytes for each in self.waiting.values())
        with stage(self._progress, f"restoring {count} image{'s' * (count != 1)}", total_bytes):
            for path in list(self.waiting):
                with self._noting(path):
                    self.results[path] = self._write(self.waiting.pop(path), index)
                if path in self.results:
                    on_restored(path, self.results[path])

    def close(self) -> None:
        """Leave nothing of what was not written."""
        for each in self.waiting.values():
            each.target.abort()

    def _write(self, each: _Waiting, index: LoadedIndex) -> RestoreResult:
        return write_snapshot(
            self._repository,
            self._lock,
            each.manifest,
            each.target,
            index=index,
            keep_going=self._options.keep_going,
            progress=SharedStage(self._progress, each.data_bytes),
        )

    @contextmanager
    def _noting(self, path: str) -> Iterator[None]:
        """Note what is wrong with a snapshot or its target, if the run is to go on; raises LockLost where a prune caused it."""
        try:
            yield
        except DeltaimgError as error:
            self._lock.check()
            if self._stops_at_failure or not (isinstance(error, ImageError) or is_of_one_snapshot(error)):
                raise
            self.failed[path] = error
