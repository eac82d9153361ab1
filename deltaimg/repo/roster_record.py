# SPDX-License-Identifier: Apache-2.0
"""Write the next roster of an image: what a run that changes its snapshots records, under the image's lock."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import datetime

from msgspec import Struct

from deltaimg.errors import ObjectExists, PermissionDenied, RepositoryLocked
from deltaimg.format.framing import digest_bytes
from deltaimg.format.limits import MAX_ROSTER_TRAIL
from deltaimg.format.manifest import format_time
from deltaimg.format.roster import Roster, split_roster_name
from deltaimg.repo.host_manifests import Vouched, vouch
from deltaimg.repo.host_places import KnownPlace
from deltaimg.repo.lock import ImageLock
from deltaimg.repo.object_kinds import ROSTER
from deltaimg.repo.repository import Repository, SnapshotRef
from deltaimg.repo.roster_state import NewestRoster, is_new
from deltaimg.repo.rosters import has_rosters, look_under_lock

_TRIES = 3


class Changes(Struct, frozen=True):
    """What a run does with the snapshots of an image whose lock it holds."""

    unsettled: Collection[SnapshotRef] = ()
    """It is about to add or to remove these."""
    committed: Collection[SnapshotRef] = ()
    """It has added these."""
    is_accepting: bool = False
    """Whatever is there is recorded, and nothing else."""
    removed: Collection[str] = ()
    """It removes the keys of these write-only hosts."""


NO_CHANGES = Changes()


def record(repository: Repository, lock: ImageLock, now: datetime, changes: Changes = NO_CHANGES) -> None:
    """Write the roster of the image that is locked, unless it says all that already.

    What was found under the lock is not looked for again: since then no other run has changed anything, or the lock is
    lost, and the number of the roster taken.

    Raises:
        LockLost: the lock was removed. StoreError: it cannot be stored.
    """
    if not has_rosters(repository):
        return
    image = lock.image
    for _ in range(_TRIES):
        found = lock.roster_state or look_under_lock(repository, lock)
        newest, present = found.newest, found.list_present(changes.committed)
        lock.roster_state = None
        vouched = _vouch(repository, newest.roster, present, changes)
        present = [ref for ref in present if ref.id not in vouched.refused]
        roster = _continue(repository, newest, present, lock, now, changes, vouched.digests)
        if not changes.is_accepting and newest.error is None and _says_as_much(newest.roster, roster):
            return
        data = repository.objects.build_stored(ROSTER, roster.object_name, roster)
        try:
            repository.objects.put_bytes(roster.object_name, [data], lock.check)
        except ObjectExists:
            lock.check()
            continue  # a run that has since lost the lock wrote it just now
        with suppress(PermissionDenied):  # a host that may delete removes them with the next one
            repository.objects.delete_all(newest.names)
        place = KnownPlace.of(repository)
        known = place.recall_roster(image)
        if changes.is_accepting or known is None or not known.problem:
            place.remember(roster, digest_bytes(data).hex(), now)
        return
    raise RepositoryLocked(f"the roster of '{image}'", "another process that changes it")


def _vouch(repository: Repository, roster: Roster | None, present: Sequence[SnapshotRef], changes: Changes) -> Vouched:
    """Return what the next roster says of the snapshots of write-only hosts."""
    if changes.is_accepting or roster is None:
        own = {ref.id for ref in changes.committed}
        return vouch(repository.objects, None, [(ref.id, ref.object_name) for ref in present if ref.id not in own])
    known = {*roster.snapshots, *roster.unsettled, *(ref.id for ref in changes.committed)}
    new = [(ref.id, ref.object_name) for ref in present if ref.id not in known and is_new(ref, roster)]
    found = vouch(repository.objects, roster, new)
    return Vouched({each[:16]: each[16:] for each in roster.written} | found.digests, found.refused)


def _settle(recorded: Roster | None, present: Sequence[SnapshotRef], changes: Changes) -> tuple[str, ...]:
    """Return the snapshots that the next roster has, in order of time as far as that is known."""
    ids = [ref.id for ref in present]
    unsettled = {ref.id for ref in changes.unsettled}
    if recorded is None or changes.is_accepting:
        return tuple(each for each in ids if each not in unsettled)
    own = {ref.id for ref in changes.committed} | set(recorded.unsettled)
    new = [ref.id for ref in present if ref.id in own or is_new(ref, recorded)]
    return tuple(each for each in dict.fromkeys((*recorded.snapshots, *new)) if each not in unsettled)


def _continue(
    repository: Repository,
    newest: NewestRoster,
    present: Sequence[SnapshotRef],
    lock: ImageLock,
    now: datetime,
    changes: Changes,
    written: dict[str, str],
) -> Roster:
    """Return the roster after the newest. Args: written: digests of manifests of write-only hosts, by snapshot."""
    numbers = [parts[1] for parts in map(split_roster_name, newest.names) if parts is not None]
    if (known := KnownPlace.of(repository).recall_roster(lock.image)) is not None:
        numbers.append(known.number)  # which the store may have set back
    before = newest.roster
    times = [ref.time for ref in (*present, *changes.unsettled)]
    if before is not None and before.newest_time is not None:
        times.append(before.newest_time)
    snapshots, unsettled = _settle(before, present, changes), tuple(sorted({ref.id for ref in changes.unsettled}))
    listed = {*snapshots, *unsettled}
    return Roster(
        repository_id=repository.config.repository_id,
        image=lock.image,
        number=1 + max(numbers, default=0),
        time=format_time(now),
        snapshots=snapshots,
        unsettled=unsettled,
        newest_time=max(times, default=None),
        trail=() if before is None else (newest.digest, *before.trail)[:MAX_ROSTER_TRAIL],
        written=tuple(each + digest for each, digest in sorted(written.items()) if each in listed),
        removed=tuple(sorted({*(() if before is None else before.removed), *changes.removed})),
        host=lock.holder.host,
    )


def _says_as_much(before: Roster | None, after: Roster) -> bool:
    """Return whether the earlier of two rosters says all that the later one does."""
    if before is None:
        return not after.snapshots and not after.unsettled and not after.removed
    return _content_of(before) == _content_of(after)


def _content_of(roster: Roster) -> tuple[object, ...]:
    return roster.snapshots, roster.unsettled, roster.newest_time, roster.written, roster.removed
