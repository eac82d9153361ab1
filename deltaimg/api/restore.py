# SPDX-License-Identifier: Apache-2.0
"""Snapshots into images, or read in place."""

from __future__ import annotations

from deltaimg.api.repositories import find_snapshot
from deltaimg.engine.content.reader import SnapshotReader
from deltaimg.engine.content.snapshot import open_reader
from deltaimg.engine.progress import Progress
from deltaimg.engine.restore.run import RestoreResult
from deltaimg.engine.restore.run import restore as restore_manifest
from deltaimg.errors import UsageError
from deltaimg.options.restore import RestoreOptions
from deltaimg.repo.repository import Repository


def restore(
    repository: Repository,
    selector: str,
    target_path: str,
    options: RestoreOptions | None = None,
    *,
    progress: Progress | None = None,
) -> RestoreResult:
    """Write a snapshot to a new sparse file, a block device (with `is_forced`) or the standard output (`-`)."""
    options = options or RestoreOptions()
    if not target_path:
        raise UsageError("the target has no name")
    return restore_manifest(
        repository,
        find_snapshot(repository, selector).manifest,
        target_path,
        is_forced=options.is_forced,
        keep_going=options.keep_going,
        is_synced=options.is_synced,
        progress=progress,
    )


def open_snapshot(repository: Repository, selector: str) -> SnapshotReader:
    """Return a reader for any offset of a snapshot. Close it, or use it as a context manager: a prune waits for readers."""
    return open_reader(repository, find_snapshot(repository, selector).manifest)
