# SPDX-License-Identifier: Apache-2.0
"""The commit of a backup: its manifest appears while its lock stands, or it does not stay.

A host that sleeps for hours may wake up as one that was taken for dead: its lock was removed, and a prune may have deleted
what it meant to refer to. So the lock is asked for just before the commit. Between that answer and the commit it may still be
lost, and so it is asked for again just after; then the snapshot stays only if all that it needs is there and not condemned.
"""

from __future__ import annotations

import numpy as np

from deltaimg.arrays import Runs
from deltaimg.errors import IntegrityError, LockLost
from deltaimg.format.manifest import Manifest
from deltaimg.format.pack import PACKS, pack_name
from deltaimg.repo.index import load_index
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
    lock.check()
    repository.commit(manifest)
    try:
        lock.check()
    except LockLost:
        if _needs_what_goes(repository, table, runs):
            repository.remove_snapshot(SnapshotRef(manifest.image, manifest.time, manifest.id))
            raise


def _needs_what_goes(repository: Repository, table: SlotTable, runs: Runs) -> bool:
    """Tell whether a record that `runs` need is condemned, or not there any more."""
    used = table.used_records(runs)
    now = SlotTable(repository, load_index(repository))
    try:
        records = now.add_records(table.record_ids[used], table.slot_counts[used].astype(np.uint16), "the new snapshot")
        entries = now.entries[np.union1d(records, now.add_sources(records))]
    except IntegrityError:
        return True
    needed = {pack_name(now.index.packs[number]) for number in set(now.index.entries["pack"][entries].tolist())}
    there = {found.name for found in repository.store.list(PACKS)}
    return bool(now.index.is_condemned[entries].any()) or not needed <= there
