# SPDX-License-Identifier: Apache-2.0
"""Rosters of an encrypted repository: which snapshots each image has, so that what the store withholds or puts back is noticed.

A run that adds or removes snapshots of an image records that, under the image's lock. A roster is written once; the next one
has the next number, and then those before it are removed. A host remembers the newest roster it has seen of each image
(`host_places`): so it notices an older state of the repository, and one that does not continue what it has seen.

Always  a snapshot that is about to be removed, or to be copied here, is unsettled before it is: no crash makes a false alarm. A
        backup that is cut off between its commit and its roster is recognised by its time.
Always  what is missing stays in the roster, and what was put back stays out of it, until that is accepted, or it is forgotten.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from deltaimg.errors import (
    IntegrityError,
    Malformed,
    ObjectExists,
    ObjectNotFound,
    PermissionDenied,
    RepositoryLocked,
    SealBroken,
    UnsupportedFormat,
)
from deltaimg.format.framing import HEADER_BYTES, digest_bytes
from deltaimg.format.limits import MAX_ROSTER_TRAIL
from deltaimg.format.manifest import SNAPSHOTS, format_time, parse_time
from deltaimg.format.roster import ROSTERS, Roster, split_roster_name
from deltaimg.format.sealing import HOST_BYTES, find_host
from deltaimg.repo.host_manifests import Vouched, find_refusal, list_hosts, vouch
from deltaimg.repo.host_places import KnownRoster, Place
from deltaimg.repo.lock import ImageLock
from deltaimg.repo.object_kinds import ROSTER
from deltaimg.repo.repository import Repository, SnapshotRef

_TRIES = 3
_NAMED = 3
"""How many snapshots a message names."""


class Disagreement(Struct, frozen=True):
    """Something in the store that contradicts what was recorded or seen."""

    object_name: str
    problem: str
    is_loss: bool
    """Whether something is missing, or older than it was; otherwise it is there, and should not be."""


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


class _Newest(Struct, frozen=True):
    """The newest roster of an image that can be read, if there is any."""

    names: tuple[str, ...]
    """Of all rosters of the image, the oldest first."""
    roster: Roster | None = None
    digest: str = ""
    """digest-16 of its stored bytes."""
    error: IntegrityError | UnsupportedFormat | None = None
    """Of a newer one."""


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
            with the lock, for `record` and `list_under_lock`.
    """
    if not has_rosters(repository):
        return []
    newest, present = _read(repository, image) if lock is None else _look(repository, lock)
    found = _compare(newest, () if _is_of_hosts(repository, newest, present) else present, image)
    place = _place_of(repository)
    known = place.recall_roster(image)
    problem = None if known is None else _compare_with_known(newest, known)
    if known is not None and problem is not None:
        if problem != known.problem:
            place.note_roster(image, replace(known, problem=problem))
        name = f"{ROSTERS}{image}/" if newest.roster is None else newest.roster.object_name
        return [Disagreement(name, problem, is_loss=True), *found]
    if newest.roster is not None and (known is None or known.digest != newest.digest):
        _remember(place, newest.roster, newest.digest, now)
    return found


def find_exchange(repository: Repository) -> str | None:
    """Return how another repository has taken the place of one that this host has seen, or None."""
    if not repository.config.is_encrypted or repository.is_locked:
        return None
    found = _place_of(repository).find_other()
    if found is None:
        return None
    return (
        f"the repository here is {repository.config.repository_id[:8]}, and this host saw {found[0][:8]} here on "
        f"{found[1]:%Y-%m-%d %H:%M} UTC: its config was exchanged, or another disk is mounted"
    )


def accept_exchange(repository: Repository, now: datetime) -> None:
    """Note that a repository is where it is, whatever was there before."""
    if has_rosters(repository):
        _place_of(repository).accept(now)


def forget_place(repository: Repository) -> None:
    """Forget what this host has seen of encrypted repositories where there is one without encryption now."""
    _place_of(repository).forget()


def find_withheld(repository: Repository, image: str) -> set[str]:
    """Return the ids of snapshots of an image that are recorded and not there."""
    if not has_rosters(repository):
        return set()
    newest, present = _read(repository, image)
    recorded = () if newest.roster is None else newest.roster.snapshots
    return set(recorded) - {ref.id for ref in present}


def is_forgotten(repository: Repository, image: str) -> bool:
    """Return whether an image that has no snapshot lost them by being forgotten, and none is withheld."""
    if not has_rosters(repository):
        return False
    newest = _load_newest(repository, image)
    known = _place_of(repository).recall_roster(image)
    return (
        newest.roster is not None
        and not newest.roster.snapshots
        and (known is None or _compare_with_known(newest, known) is None)
    )


def list_under_lock(repository: Repository, lock: ImageLock) -> list[SnapshotRef]:
    """Return the snapshots of the image that is locked, oldest first, listed now only if that was not done under the lock."""
    return (
        list(lock.roster_state.refs)
        if isinstance(lock.roster_state, _RosterState)
        else repository.list_snapshots(lock.image)
    )


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
        newest, present = (
            lock.roster_state.add(changes) if isinstance(lock.roster_state, _RosterState) else _look(repository, lock)
        )
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
        place = _place_of(repository)
        known = place.recall_roster(image)
        if changes.is_accepting or known is None or not known.problem:
            _remember(place, roster, digest_bytes(data).hex(), now)
        return
    raise RepositoryLocked(f"the roster of '{image}'", "another process that changes it")


# -- what is there -----------------------------------------------------------------------------------------------------


class _RosterState(Struct, frozen=True):
    """What a run has found of the snapshots of an image under the image's lock."""

    newest: _Newest
    refs: tuple[SnapshotRef, ...]
    quarantined: tuple[SnapshotRef, ...]

    def add(self, changes: Changes) -> tuple[_Newest, list[SnapshotRef]]:
        """Return the newest roster, and the snapshots that there are now, as `_list_present` does."""
        return self.newest, sorted({*self.refs, *self.quarantined, *changes.committed})


def _look(repository: Repository, lock: ImageLock) -> tuple[_Newest, list[SnapshotRef]]:
    """Return the newest roster and the snapshots that there are, and keep them with the lock."""
    newest = _load_newest(repository, lock.image)
    refs, quarantined = repository.list_snapshots(lock.image), repository.list_quarantined(lock.image)
    lock.roster_state = found = _RosterState(newest, tuple(refs), tuple(quarantined))
    return found.add(NO_CHANGES)


def _list_present(repository: Repository, image: str) -> list[SnapshotRef]:
    """Return the snapshots that an image has, damaged ones in quarantine included, in order of time."""
    return sorted({*repository.list_snapshots(image), *repository.list_quarantined(image)})


class ManifestCheck:
    """Refuses manifests of write-only hosts that no holder of the secret should take; one for each open repository.

    The rosters and hosts of when it was asked first will do: what was recorded since, was new then.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._rosters: dict[str, Roster | None] = {}
        self._hosts: set[str] | None = None

    def check(self, ref: SnapshotRef, data: bytes) -> None:
        """Raise SealBroken for a manifest of a write-only host that is not what it was, or came after its key was removed.

        Args:
            data: its stored bytes.
        """
        if not find_host(data) or not has_rosters(self._repository):
            return
        if ref.image not in self._rosters:
            self._rosters[ref.image] = _load_newest(self._repository, ref.image).roster
        if self._hosts is None:
            self._hosts = list_hosts(self._repository.objects)
        if problem := find_refusal(self._rosters[ref.image], ref.id, data, self._hosts):
            raise SealBroken(ref.object_name, 0, problem)


def _vouch(repository: Repository, roster: Roster | None, present: Sequence[SnapshotRef], changes: Changes) -> Vouched:
    """Return what the next roster says of the snapshots of write-only hosts."""
    if changes.is_accepting or roster is None:
        own = {ref.id for ref in changes.committed}
        return vouch(repository.objects, None, [(ref.id, ref.object_name) for ref in present if ref.id not in own])
    known = {*roster.snapshots, *roster.unsettled, *(ref.id for ref in changes.committed)}
    new = [(ref.id, ref.object_name) for ref in present if ref.id not in known and _is_new(ref, roster)]
    found = vouch(repository.objects, roster, new)
    return Vouched({each[:16]: each[16:] for each in roster.written} | found.digests, found.refused)


def _is_of_hosts(repository: Repository, newest: _Newest, present: Sequence[SnapshotRef]) -> bool:
    """Return whether an image has no roster since only write-only hosts have stored it so far."""
    if newest.roster is not None or newest.error is not None:
        return False
    with suppress(ObjectNotFound):
        return all(
            find_host(repository.objects.get_range(ref.object_name, 0, HEADER_BYTES + HOST_BYTES)) for ref in present
        )
    return False


def _list_names(repository: Repository, image: str) -> tuple[str, ...]:
    return tuple(sorted(found.name for found in repository.objects.list(f"{ROSTERS}{image}/")))


def _load_newest(repository: Repository, image: str) -> _Newest:
    for _ in range(_TRIES):
        names = _list_names(repository, image)
        error: IntegrityError | UnsupportedFormat | None = None
        try:
            for name in reversed(names):
                try:
                    roster, data = repository.objects.get_with_bytes(ROSTER, name)
                    if roster.repository_id != repository.config.repository_id:
                        raise Malformed(name, HEADER_BYTES, f"it is of the repository {roster.repository_id}")
                    return _Newest(names, roster, digest_bytes(data).hex(), error)
                except (IntegrityError, UnsupportedFormat) as problem:
                    error = error or problem
            return _Newest(names, error=error)
        except ObjectNotFound:
            continue  # it was replaced since the listing
    return _Newest(())


def _read(repository: Repository, image: str) -> tuple[_Newest, list[SnapshotRef]]:
    """Return the newest roster and the snapshots that there are while it is the newest."""
    newest = _load_newest(repository, image)
    present = _list_present(repository, image)
    for _ in range(_TRIES):
        if _list_names(repository, image) == newest.names:
            break
        newest = _load_newest(repository, image)
        present = _list_present(repository, image)
    return newest, present


# -- what it should be -------------------------------------------------------------------------------------------------


def _compare(newest: _Newest, present: Sequence[SnapshotRef], image: str) -> list[Disagreement]:
    found = []
    if newest.error is not None:
        name = newest.error.object_name
        problem = newest.error.problem if isinstance(newest.error, IntegrityError) else str(newest.error)
        found.append(Disagreement(name, problem.removeprefix(f"{name}: "), is_loss=True))
    if newest.roster is None:
        if present and newest.error is None:
            problem = (
                "no roster says which snapshots there are: the first backup was cut off, or the store withholds it"
            )
            found.append(Disagreement(f"{ROSTERS}{image}/", problem, is_loss=False))
        return found
    roster, ids = newest.roster, {ref.id for ref in present}
    when = f"{parse_time(roster.time):%Y-%m-%d %H:%M} UTC"
    if missing := [each for each in roster.snapshots if each not in ids]:
        are = "was there" if len(missing) == 1 else "were there"
        problem = f"{_name(image, missing)} {are} on {when}, and no run has forgotten any since: lost, or withheld"
        found.append(Disagreement(f"{SNAPSHOTS}{image}/", problem, is_loss=True))
    known = {*roster.snapshots, *roster.unsettled}
    for ref in present:
        if ref.id not in known and not _is_new(ref, roster):
            problem = f"was not there on {when}: it was forgotten, and the store has put it back"
            found.append(Disagreement(ref.object_name, problem, is_loss=False))
    return found


def _name(image: str, ids: Sequence[str]) -> str:
    labels = [f"{image}@{each[:8]}" for each in ids[-_NAMED:]]
    return ", ".join(labels) + (f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else "")


def _is_new(ref: SnapshotRef, roster: Roster) -> bool:
    """Return whether a snapshot that is not in a roster is of a backup that was cut off before it recorded it."""
    return ref.time > (roster.newest_time or "")


def _compare_with_known(newest: _Newest, known: KnownRoster) -> str | None:
    """Return how the newest roster contradicts the one that this host saw last, or None."""
    if known.problem:
        return known.problem
    seen = f"{parse_time(known.seen):%Y-%m-%d %H:%M} UTC"
    roster = newest.roster
    if roster is None:
        return f"there is no roster, and this host saw one of {known.count} snapshots on {seen}: lost, or withheld by the store"
    if roster.number < known.number:
        return (
            f"is of {parse_time(roster.time):%Y-%m-%d %H:%M} UTC with {len(roster.snapshots)} snapshots, older than the one of "
            f"{known.count} snapshots that this host saw on {seen}: the store was set back, or withholds what is newer"
        )
    is_same = newest.digest == known.digest if roster.number == known.number else known.digest in roster.trail
    if is_same or roster.number - known.number > MAX_ROSTER_TRAIL:
        return None
    return (
        f"does not continue the one of {known.count} snapshots that this host saw on {seen}: the store was set back "
        "and written to since, or shows each host another state"
    )


def _settle(recorded: Roster | None, present: Sequence[SnapshotRef], changes: Changes) -> tuple[str, ...]:
    """Return the snapshots that the next roster has, in order of time as far as that is known."""
    ids = [ref.id for ref in present]
    unsettled = {ref.id for ref in changes.unsettled}
    if recorded is None or changes.is_accepting:
        return tuple(each for each in ids if each not in unsettled)
    own = {ref.id for ref in changes.committed} | set(recorded.unsettled)
    new = [ref.id for ref in present if ref.id in own or _is_new(ref, recorded)]
    return tuple(each for each in dict.fromkeys((*recorded.snapshots, *new)) if each not in unsettled)


def _continue(
    repository: Repository,
    newest: _Newest,
    present: Sequence[SnapshotRef],
    lock: ImageLock,
    now: datetime,
    changes: Changes,
    written: dict[str, str],
) -> Roster:
    """Return the roster after the newest. Args: written: digests of manifests of write-only hosts, by snapshot."""
    numbers = [parts[1] for parts in map(split_roster_name, newest.names) if parts is not None]
    if (known := _place_of(repository).recall_roster(lock.image)) is not None:
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


def _place_of(repository: Repository) -> Place:
    return Place(repository.objects.absolute_location, repository.config.repository_id)


def _remember(place: Place, roster: Roster, digest: str, now: datetime) -> None:
    """Remember on this host a roster that contradicts nothing that it has seen."""
    place.note_roster(roster.image, KnownRoster(roster.number, digest, format_time(now), len(roster.snapshots)))
