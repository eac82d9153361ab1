# SPDX-License-Identifier: Apache-2.0
"""What a run that changes the snapshots of an image does with its roster: say what is wrong with it, and continue it.

Always  a roster that cannot be written costs a warning: the snapshots are committed, or forgotten, nevertheless.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime

from deltaimg.engine.progress import Progress
from deltaimg.errors import LockLost, RepositoryLocked, StoreError
from deltaimg.repo.host_places import find_exchange
from deltaimg.repo.lock import ImageLock
from deltaimg.repo.repository import Repository, SnapshotRef
from deltaimg.repo.roster_record import NO_CHANGES, Changes, record
from deltaimg.repo.rosters import find_disagreements

_ACCEPT = "if that is right, 'deltaimg check --accept-state' accepts it"


def warn_of_disagreements(
    repository: Repository, image: str, now: datetime, progress: Progress, lock: ImageLock | None = None
) -> None:
    """Warn of what the store withholds of an image, or has put back, as far as that can be noticed.

    Args:
        lock: of the image, if this run has it and changes nothing but by `record_changes` with what it commits.
    """
    for each in find_disagreements(repository, image, now, lock):
        progress.warn(f"{each.object_name}: {each.problem}; {_ACCEPT}")


def warn_of_exchange(repository: Repository, progress: Progress) -> None:
    """Warn if this host has seen another repository in the place of this one."""
    if (problem := find_exchange(repository)) is not None:
        progress.warn(f"{repository.objects.location}: {problem}; {_ACCEPT}")


def record_changes(
    repository: Repository, lock: ImageLock, now: datetime, progress: Progress, changes: Changes = NO_CHANGES
) -> None:
    """Write the roster of the image that is locked; raises LockLost."""
    try:
        record(repository, lock, now, changes)
    except (StoreError, RepositoryLocked) as error:
        progress.warn(f"which snapshots image '{lock.image}' has could not be recorded: {error}")


def record_committed(
    repository: Repository, lock: ImageLock, now: datetime, progress: Progress, ref: SnapshotRef
) -> None:
    """Write the roster after the commit of a backup, which stays even if the lock was lost since."""
    with suppress(LockLost):
        record_changes(repository, lock, now, progress, Changes(committed=[ref]))
