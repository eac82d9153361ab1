# SPDX-License-Identifier: Apache-2.0
"""Rosters of an encrypted repository: which snapshots each image has, so that what the store withholds or puts back is noticed.

A run that adds or removes snapshots of an image records that, under the image's lock. A roster is written once; the next one
has the next number, and then those before it are removed. A host remembers the newest roster it has seen of each image
(`host_places`), and so notices an older state of the repository, and one that does not continue what it has seen.

Always  a snapshot that is about to be removed, or to be copied here, is unsettled before it is: no crash makes a false alarm. A
        backup that is cut off between its commit and its roster is recognised by its time.
Always  what is missing stays in the roster, and what was put back stays out of it, until that is accepted, or it is forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime

from msgspec.structs import replace

from deltaimg.errors import IntegrityError, Malformed, ObjectNotFound, UnsupportedFormat
from deltaimg.format.framing import HEADER_BYTES, digest_bytes
from deltaimg.format.roster import ROSTERS, split_roster_name
from deltaimg.format.sealing import HOST_BYTES, find_host
from deltaimg.repo.host_places import KnownPlace
from deltaimg.repo.lock import ImageLock
from deltaimg.repo.object_kinds import ROSTER
from deltaimg.repo.repository import Repository, SnapshotRef
from deltaimg.repo.roster_state import Disagreement, NewestRoster, RosterState, compare_with_present, find_contradiction

_TRIES = 3


def has_rosters(repository: Repository) -> bool:
    """Return whether snapshots are recorded: without a key, none could tell a roster from a forged one."""
    return repository.secret is not None


def list_roster_images(repository: Repository) -> set[str]:
    """Return the images that have rosters."""
    names = (split_roster_name(found.name) for found in repository.objects.list(ROSTERS))
    return {parts[0] for parts in names if parts is not None}


def find_disagreements(
    repository: Repository, image: str, now: datetime, lock: ImageLock | None = None
) -> list[Disagreement]:
    """Return how the snapshots of an image that are there differ from those recorded, and from what this host has seen.

    What differs from what this host has seen is remembered until it is accepted.

    Args:
        lock: of the image, if this run has it; otherwise other runs may change the snapshots meanwhile. What is found is kept
            with the lock, for `roster_record.record` and `list_under_lock`.
    """
    if not has_rosters(repository):
        return []
    state = _read(repository, image) if lock is None else look_under_lock(repository, lock)
    newest, present = state.newest, state.list_present()
    found = compare_with_present(newest, () if _is_of_hosts(repository, newest, present) else present, image)
    place = KnownPlace.of(repository)
    known = place.recall_roster(image)
    problem = None if known is None else find_contradiction(newest, known)
    if known is not None and problem is not None:
        if problem != known.problem:
            place.note_roster(image, replace(known, problem=problem))
        name = f"{ROSTERS}{image}/" if newest.roster is None else newest.roster.object_name
        return [Disagreement(name, problem, is_loss=True), *found]
    if newest.roster is not None and (known is None or known.digest != newest.digest):
        place.remember(newest.roster, newest.digest, now)
    return found


def find_withheld(repository: Repository, image: str) -> set[str]:
    """Return the ids of snapshots of an image that are recorded and not there."""
    if not has_rosters(repository):
        return set()
    state = _read(repository, image)
    recorded = () if state.newest.roster is None else state.newest.roster.snapshots
    return set(recorded) - {ref.id for ref in state.list_present()}


def is_forgotten(repository: Repository, image: str) -> bool:
    """Return whether an image that has no snapshot lost them by being forgotten, and none is withheld."""
    if not has_rosters(repository):
        return False
    newest = load_newest(repository, image)
    known = KnownPlace.of(repository).recall_roster(image)
    return (
        newest.roster is not None
        and not newest.roster.snapshots
        and (known is None or find_contradiction(newest, known) is None)
    )


def list_under_lock(repository: Repository, lock: ImageLock) -> list[SnapshotRef]:
    """Return the snapshots of the image that is locked, oldest first, listed now only if that was not done under the lock."""
    return repository.list_snapshots(lock.image) if lock.roster_state is None else list(lock.roster_state.refs)


# -- what is there -----------------------------------------------------------------------------------------------------


def look_under_lock(repository: Repository, lock: ImageLock) -> RosterState:
    """Return the newest roster and the snapshots that there are, and keep them with the lock."""
    lock.roster_state = _look(repository, lock.image)
    return lock.roster_state


def _look(repository: Repository, image: str) -> RosterState:
    return RosterState(
        load_newest(repository, image),
        tuple(repository.list_snapshots(image)),
        tuple(repository.list_quarantined(image)),
    )


def _read(repository: Repository, image: str) -> RosterState:
    """Return the newest roster and the snapshots that there are while it is the newest."""
    found = _look(repository, image)
    for _ in range(_TRIES):
        if _list_names(repository, image) == found.newest.names:
            break
        found = _look(repository, image)
    return found


def _list_names(repository: Repository, image: str) -> tuple[str, ...]:
    return tuple(sorted(found.name for found in repository.objects.list(f"{ROSTERS}{image}/")))


def load_newest(repository: Repository, image: str) -> NewestRoster:
    """Return the newest roster of an image that can be read; raises StoreError."""
    for _ in range(_TRIES):
        names = _list_names(repository, image)
        error: IntegrityError | UnsupportedFormat | None = None
        try:
            for name in reversed(names):
                try:
                    roster, data = repository.objects.get_with_bytes(ROSTER, name)
                    if roster.repository_id != repository.config.repository_id:
                        raise Malformed(name, HEADER_BYTES, f"it is of the repository {roster.repository_id}")
                    return NewestRoster(names, roster, digest_bytes(data).hex(), error)
                except (IntegrityError, UnsupportedFormat) as problem:
                    error = error or problem
            return NewestRoster(names, error=error)
        except ObjectNotFound:
            continue  # it was replaced since the listing
    return NewestRoster(())


def _is_of_hosts(repository: Repository, newest: NewestRoster, present: Sequence[SnapshotRef]) -> bool:
    """Return whether an image has no roster since only write-only hosts have stored it so far."""
    if newest.roster is not None or newest.error is not None:
        return False
    with suppress(ObjectNotFound):
        return all(
            find_host(repository.objects.get_range(ref.object_name, 0, HEADER_BYTES + HOST_BYTES)) for ref in present
        )
    return False
