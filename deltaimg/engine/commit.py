# SPDX-License-Identifier: Apache-2.0
"""The commit of a snapshot: its manifest appears while its lock is held, or it does not stay.

A host that is frozen for hours may be considered dead when it wakes: its lock was removed, and a prune may have deleted what
it meant to refer to. So it checks its lock at the last moment before the commit. Between that check and the commit the lock
may still be lost, and so it is checked again just after; then the snapshot is kept only if all that it needs is there and not
pending deletion. A prune that has not listed anything yet will find the manifest when it marks a second time.

What remains is a host that is frozen again between the commit and that second check: see docs/reliability.md.
"""

from __future__ import annotations

from deltaimg.errors import IntegrityError, LockLost, ObjectNotFound, SnapshotError
from deltaimg.format.manifest import Manifest
from deltaimg.repo.deletions import load_deletions
from deltaimg.repo.index import load_index
from deltaimg.repo.layers import resolve_map
from deltaimg.repo.lock import ImageLock
from deltaimg.repo.repository import Repository, SnapshotRef
from deltaimg.repo.slots import SlotTable


def commit_snapshot(repository: Repository, lock: ImageLock, manifest: Manifest, data: bytes | None = None) -> None:
    """Store a manifest: the commit.

    Args:
        data: its bytes, where it is a copy of one that was read.

    Raises:
        LockLost: the lock was removed, and the snapshot was not committed, or does not stay.
    """
    repository.commit(manifest, lock.check, data)
    try:
        lock.check()
    except LockLost:
        if _needs_what_goes(repository, manifest):
            repository.remove_snapshot(SnapshotRef.of(manifest))
            raise


def _needs_what_goes(repository: Repository, manifest: Manifest) -> bool:
    """Return whether a map or a record that the snapshot needs is pending deletion, or not there any more."""
    if not set(manifest.maps).isdisjoint(name for each in load_deletions(repository) for name in each.objects.maps):
        return True
    table = SlotTable(
        repository, load_index(repository)
    )  # again: a prune has listed or deleted what the run's index has
    try:
        runs = resolve_map(repository, manifest, table).runs
        needed = table.add_sources(table.used_records(runs))
    except (IntegrityError, SnapshotError, ObjectNotFound):
        return True
    entries = table.entries[needed]
    return bool((table.index.is_pending | table.index.is_missing)[entries].any())
