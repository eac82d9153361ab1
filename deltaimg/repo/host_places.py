# SPDX-License-Identifier: Apache-2.0
"""What this host remembers of encrypted repositories by where they are: which was there, and the newest roster of each image.

One file a location, `<digest of the location>.seen.json`: by location and not by repository alone, since a copy that another
tool made of a repository may well be older than the original. Of a repository that has taken another's place nothing is
remembered until that is accepted. Best effort, as all that a host remembers (`host_files`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

import msgspec
from msgspec import Struct

from deltaimg.format.framing import digest_bytes
from deltaimg.format.manifest import format_time, is_time, parse_time
from deltaimg.format.roster import Roster
from deltaimg.repo.host_files import change_file, open_folder, read_file
from deltaimg.repo.repository import Repository

_MAX_BYTES = 16 << 20
_MAX_ROSTERS = 16_384
_MAX_REPOSITORIES = 64
"""Remembered for one location: of disks that are used in turn, each has one."""


class KnownRoster(msgspec.Struct, frozen=True):
    """The newest roster of an image that this host has seen."""

    number: int
    digest: str
    """digest-16 of its stored bytes."""
    seen: str
    """When, in the form of a manifest's `time`."""
    count: int
    """Of snapshots in it."""
    problem: str = ""
    """How a later one contradicted it; until that is accepted."""


class KnownRepository(msgspec.Struct, frozen=True):
    """A repository that was at a location."""

    seen: str
    """When this host last noted anything about it, in the form of a manifest's `time`."""
    rosters: dict[str, KnownRoster] = {}
    """By image."""


class _Document(msgspec.Struct):
    location: str = ""
    """For people."""
    repositories: dict[str, KnownRepository] = {}


class KnownPlace(Struct, frozen=True):
    """A repository and where it is."""

    location: str
    """Absolute."""
    repository_id: str

    @classmethod
    def of(cls, repository: Repository) -> KnownPlace:
        """Return where a repository is."""
        return cls(repository.objects.absolute_location, repository.config.repository_id)

    def find_other(self) -> tuple[str, datetime] | None:
        """Return which other repository was last seen here, and when, if this one never was and has not been accepted."""
        known = self._read().repositories
        if not known or self.repository_id in known:
            return None
        other, last = max(known.items(), key=lambda each: each[1].seen)
        return other, parse_time(last.seen)

    def accept(self, now: datetime) -> None:
        """Note that this repository is here, whatever was here before."""

        def note(document: _Document) -> None:
            before = document.repositories.get(self.repository_id)
            rosters = {} if before is None else before.rosters
            document.repositories[self.repository_id] = KnownRepository(format_time(now), rosters)

        self._change(note)

    def recall_roster(self, image: str) -> KnownRoster | None:
        """Return what is remembered of an image's rosters."""
        known = self._read().repositories.get(self.repository_id)
        return None if known is None else known.rosters.get(image)

    def note_roster(self, image: str, roster: KnownRoster) -> None:
        """Remember a roster of an image in place of what is remembered of it."""

        def note(document: _Document) -> None:
            known = document.repositories.get(self.repository_id)
            if known is None and document.repositories:
                return  # another repository was here
            rosters = {} if known is None else known.rosters
            document.repositories[self.repository_id] = KnownRepository(roster.seen, {**rosters, image: roster})

        self._change(note)

    def remember(self, roster: Roster, digest: str, now: datetime) -> None:
        """Remember a roster that contradicts nothing that this host has seen."""
        self.note_roster(roster.image, KnownRoster(roster.number, digest, format_time(now), len(roster.snapshots)))

    def forget(self) -> None:
        """Forget all that is known about this location."""
        with suppress(OSError), open_folder(makes=False) as folder:
            os.unlink(self._file_name, dir_fd=folder)

    @property
    def _file_name(self) -> str:
        return f"{digest_bytes(os.fsencode(self.location)).hex()}.seen.json"

    def _read(self) -> _Document:
        with suppress(OSError), open_folder(makes=False) as folder:
            return _parse(read_file(folder, self._file_name, _MAX_BYTES))
        return _Document()

    def _change(self, change: Callable[[_Document], None]) -> None:
        def rewrite(content: bytes | None) -> bytes | None:
            known = _parse(content)
            known.location = self.location
            before = msgspec.json.encode(known)
            change(known)
            latest = sorted(known.repositories.items(), key=lambda each: each[1].seen)[-_MAX_REPOSITORIES:]
            known.repositories = {repository_id: _bound(each) for repository_id, each in latest}
            data = msgspec.json.encode(known)
            return None if data == before else data

        with suppress(OSError):
            change_file(self._file_name, _MAX_BYTES, rewrite)


def find_exchange(repository: Repository) -> str | None:
    """Return how another repository has taken the place of one that this host has seen, or None."""
    if not repository.config.is_encrypted or repository.is_locked:
        return None
    found = KnownPlace.of(repository).find_other()
    if found is None:
        return None
    return (
        f"the repository here is {repository.config.repository_id[:8]}, and this host saw {found[0][:8]} here on "
        f"{found[1]:%Y-%m-%d %H:%M} UTC: its config was exchanged, or another disk is mounted"
    )


def accept_exchange(repository: Repository, now: datetime) -> None:
    """Note that a repository is where it is, whatever was there before."""
    if repository.secret is not None:
        KnownPlace.of(repository).accept(now)


def forget_place(repository: Repository) -> None:
    """Forget what this host has seen of encrypted repositories where there is one without encryption now."""
    KnownPlace.of(repository).forget()


def _bound(known: KnownRepository) -> KnownRepository:
    rosters = sorted(known.rosters.items(), key=lambda each: each[1].seen)[-_MAX_ROSTERS:]
    return KnownRepository(known.seen, dict(rosters))


def _parse(data: bytes | None) -> _Document:
    """Return what a file has; nothing where it is damaged."""
    with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        found = msgspec.json.decode(data or b"{}", type=_Document)
        if all(
            is_time(known.seen) and all(is_time(roster.seen) for roster in known.rosters.values())
            for known in found.repositories.values()
        ):
            return found
    return _Document()
