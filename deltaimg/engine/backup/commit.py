# SPDX-License-Identifier: Apache-2.0
"""The commit of a backup: its manifest appears while its lock stands, or it does not stay.

A host that is frozen for hours may be considered dead when it wakes: its lock was removed, and a prune may have deleted what it
meant to refer to. So the lock is asked for at the last moment before the commit. Between that answer and the commit it
may still be lost, and so it is asked for again just after; then the snapshot stays only if all that it needs is there and not
pending deletion. What is left is a forget on another host that had listed the snapshots before this one, and removes its base
after that second look.
"""

from __future__ import annotations

import numpy as np

from deltaimg.arrays import Runs
from deltaimg.errors import IntegrityError, LockLost, ObjectNotFound, SnapshotError
from deltaimg.format.manifest import Manifest
from deltaimg.repo.deletions import load_deletions
from deltaimg.repo.index import load_index
from deltaimg.repo.layers import resolve_map
from deltaimg.repo.lock import ImageLock
from deltaimg.repo.repository import Repository, SnapshotRef
from deltaimg.repo.slots import SlotTable


def commit_snapshot(repository: Repository, lock: ImageLock, manifest: Manifest, table: SlotTable, runs: Runs) -> None:
    """Store a manifest: the commit.

    Args:
        runs: the snapshot's whole map, in slots of `table`.

    Raises:
        LockLost: the lock was removed, and the snapshot was not committed, or does not stay.
    """
    repository.commit(manifest, lock.check)
    try:
        lock.check()
    except LockLost:
        if _needs_what_goes(repository, manifest, table, runs):
            repository.remove_snapshot(SnapshotRef.of(manifest))
            raise


def _needs_what_goes(repository: Repository, manifest: Manifest, table: SlotTable, runs: Runs) -> bool:
    """Tell whether a map or a record that the snapshot needs is pending deletion, or not there any more."""
    if not set(manifest.maps).isdisjoint(name for each in load_deletions(repository) for name in each.objects.maps):
        return True
    used = table.used_records(runs)
    now = SlotTable(repository, load_index(repository))
    try:
        resolve_map(repository, manifest, now)
        records = now.add_records(table.record_ids[used], table.slot_counts[used].astype(np.uint16), "the new snapshot")
        needed = now.add_sources(records)
    except (IntegrityError, SnapshotError, ObjectNotFound):
        return True
    return bool((now.index.is_pending | now.index.is_missing)[now.entries[needed]].any())
