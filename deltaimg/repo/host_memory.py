# SPDX-License-Identifier: Apache-2.0
"""What this host remembers of a repository: which images had snapshots when it last looked, and what its stores do.

Images are remembered so that their disappearance is noticed. A folder that is not mounted, or was moved elsewhere, looks like
one whose snapshots were all forgotten, and a prune would delete their content. So each host keeps a small file a repository,
`$XDG_STATE_HOME/deltaimg/<repository id>.json`, below `~/.local/state` where that is not set. Backup, forget, snapshots and
check write it. An image is removed from it when this host forgets its last snapshot, or is asked to prune nevertheless. A
backup that finds none of the earlier snapshots is a full one, and notes that they are lost, until they are present again.

It is best effort: without a home, or where a parent folder does not belong to this user, nothing is remembered.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from datetime import datetime, timedelta

import msgspec
from msgspec.structs import replace

from deltaimg.format.framing import digest_bytes
from deltaimg.format.manifest import format_time, is_time, parse_time
from deltaimg.repo.host_files import change_file, find_folder, open_folder, read_file
from deltaimg.repo.repository import SnapshotRef

_MAX_BYTES = 1 << 20
_MAX_IMAGES = 4096
"""The images remembered for one repository, at most."""
_MAX_STORES = 16
_TRIAL_LASTS = timedelta(days=30)
"""A server is replaced by another, or by a newer version."""
_REFRESH = timedelta(days=1)
"""What is no older than this is not written again."""


class KnownImage(msgspec.Struct, frozen=True):
    """What a host remembers about an image."""

    seen: str
    """When it last saw snapshots of it, in the form of a manifest's `time`."""
    newest: str
    """The id of the newest of them."""
    is_lost: bool = False
    """Whether a full backup was made since, because all of them had vanished; until that one is there again."""


class KnownStore(msgspec.Struct, frozen=True):
    """What a trial of a store found out (`store_trial`)."""

    tried: str
    """When, in the form of a manifest's `time`."""
    creates_exclusively: bool


class _Document(msgspec.Struct):
    images: dict[str, KnownImage] = {}
    stores: dict[str, KnownStore] = {}
    """By location, as the user named it: copies of one repository may be on stores that differ."""


def find_vanished(repository_id: str, images: Collection[str]) -> dict[str, datetime]:
    """Return the images that had snapshots when this host last looked and have lost them, with the time of that.

    Args:
        images: those that have snapshots.
    """
    with suppress(OSError), open_folder(makes=False) as folder:
        known = _read(folder, repository_id).images
        return {
            image: parse_time(each.seen) for image, each in sorted(known.items()) if each.is_lost or image not in images
        }
    return {}


def remember(repository_id: str, refs: Iterable[SnapshotRef], now: datetime) -> None:
    """Note which snapshots there are, oldest first within an image."""
    ids: dict[str, list[str]] = {}
    for ref in refs:
        ids.setdefault(ref.image, []).append(ref.id)

    def note(document: _Document) -> None:
        known = document.images
        for image, present in ids.items():
            before = known.get(image)
            is_lost = before is not None and before.is_lost and before.newest not in present
            if before is None or before.is_lost != is_lost or abs(now - parse_time(before.seen)) > _REFRESH:
                newest = before.newest if before is not None and is_lost else present[-1]
                known[image] = KnownImage(format_time(now), newest, is_lost)

    _change(repository_id, note)


def note_loss(repository_id: str, image: str) -> datetime | None:
    """Note that an image has no snapshot, though this host has not forgotten them; return when it last had one, if ever."""
    found: list[datetime] = []

    def note(document: _Document) -> None:
        if before := document.images.get(image):
            document.images[image] = replace(before, is_lost=True)
            found.append(parse_time(before.seen))

    _change(repository_id, note)
    return found[0] if found else None


def forget(repository_id: str, images: Iterable[str]) -> None:
    """Note that images have no snapshots any more, as intended."""

    def drop(document: _Document) -> None:
        for image in images:
            document.images.pop(image, None)

    _change(repository_id, drop)


def recall_trial(repository_id: str, location: str, now: datetime) -> bool | None:
    """Return whether the store at a location creates exclusively, None if that was not tried lately."""
    with suppress(OSError), open_folder(makes=False) as folder:
        known = _read(folder, repository_id).stores.get(location)
        if known is not None and abs(now - parse_time(known.tried)) <= _TRIAL_LASTS:
            return known.creates_exclusively
    return None


def note_trial(repository_id: str, location: str, creates_exclusively: bool, now: datetime) -> None:
    """Note whether the store at a location creates exclusively."""

    def note(document: _Document) -> None:
        document.stores[location] = KnownStore(format_time(now), creates_exclusively)

    _change(repository_id, note)


def _change(repository_id: str, change: Callable[[_Document], None]) -> None:
    """Change what is remembered of a repository, if anything can be remembered here."""

    def rewrite(data: bytes | None) -> bytes | None:
        known = _parse(data)
        before = _Document(dict(known.images), dict(known.stores))
        change(known)
        return None if known == before else _build(known)

    with suppress(OSError):
        change_file(_file_name(repository_id), _MAX_BYTES, rewrite)


def _file_name(repository_id: str) -> str:
    return f"{repository_id}.json"


def _read(folder: int, repository_id: str) -> _Document:
    """Return what is remembered of a repository."""
    return _parse(read_file(folder, _file_name(repository_id), _MAX_BYTES))


def _parse(data: bytes | None) -> _Document:
    """Return what a file has; nothing where it is damaged."""
    with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        found = msgspec.json.decode(data or b"{}", type=_Document)
        return _Document(
            {image: each for image, each in found.images.items() if is_time(each.seen)},
            {location: each for location, each in found.stores.items() if is_time(each.tried)},
        )
    return _Document()


def _build(known: _Document) -> bytes:
    """Return what a file has to have, the oldest left out where there is too much."""
    images = sorted(known.images.items(), key=lambda each: each[1].seen)[-_MAX_IMAGES:]
    stores = sorted(known.stores.items(), key=lambda each: each[1].tried)[-_MAX_STORES:]
    return msgspec.json.encode(_Document(dict(images), dict(stores)))


def note_encrypted(location: str) -> None:
    """Note that the repository at a location is encrypted, so that one without encryption in its place is noticed."""
    with suppress(OSError), open_folder(makes=True) as folder:
        os.close(os.open(_encrypted_name(location), os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=folder))


def was_encrypted(location: str) -> bool:
    """Return whether this host has seen an encrypted repository at a location."""
    with suppress(OSError), open_folder(makes=False) as folder:
        return stat.S_ISREG(os.stat(_encrypted_name(location), dir_fd=folder, follow_symlinks=False).st_mode)
    return False


def name_encrypted(location: str) -> str:
    """Return the path of the file by which this host remembers that the repository at a location is encrypted."""
    return os.path.join(find_folder(), _encrypted_name(location))


def forget_encrypted(location: str) -> None:
    """Note that a repository without encryption is made at a location."""
    with suppress(OSError), open_folder(makes=False) as folder:
        os.unlink(_encrypted_name(location), dir_fd=folder)


def _encrypted_name(location: str) -> str:
    return f"{digest_bytes(os.fsencode(location)).hex()}.encrypted"
