# SPDX-License-Identifier: Apache-2.0
"""Which snapshots this host has seen when it forgot by policy: those whose dates it has reason to doubt may displace no others.

A host that backs up may store snapshots, and so may an intruder on it: of any date, in the future, or just after each good one
of the past, so that a policy would keep them in its place. Whoever forgets, preferably on another host, sees when they arrive:
a snapshot that is dated before one that was there earlier was not made in its turn.

One file a repository, `<repository id>.arrivals.json`. Best effort, as all that a host remembers (`host_files`): at the first
look, nothing is doubted but dates in the future.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime

import msgspec

from deltaimg.model import CLOCK_SKEW
from deltaimg.repo.host_files import change_file
from deltaimg.repo.repository import SnapshotRef

_MAX_BYTES = 64 << 20


class _Arrivals(msgspec.Struct, frozen=True):
    """What was seen of an image."""

    known: tuple[str, ...]
    """The ids of those that were there at the last look."""
    doubtful: tuple[str, ...] = ()


class _Document(msgspec.Struct):
    images: dict[str, _Arrivals] = {}


def note_arrivals(
    repository_id: str, image: str, moments: Mapping[SnapshotRef, datetime], now: datetime
) -> frozenset[str]:
    """Note which snapshots an image has; return the ids of those whose dates are doubtful.

    Args:
        moments: to which moment each belongs.
    """
    found: frozenset[str] = frozenset()

    def note(content: bytes | None) -> bytes | None:
        nonlocal found
        known = _parse(content)
        before = known.images.get(image)
        found = _find_doubtful(before, moments, now)
        known.images[image] = _Arrivals(tuple(sorted(ref.id for ref in moments)), tuple(sorted(found)))
        data = msgspec.json.encode(known)
        return data if known.images[image] != before and len(data) <= _MAX_BYTES else None

    with suppress(OSError):
        change_file(_name_file(repository_id), _MAX_BYTES, note)
        return found
    return _find_doubtful(None, moments, now)


def accept_arrivals(repository_id: str) -> dict[str, int]:
    """Doubt the dates of no snapshot that was seen any more; return of how many they were doubted, by image."""
    found: dict[str, int] = {}

    def accept(content: bytes | None) -> bytes | None:
        nonlocal found
        known = _parse(content)
        found = {image: len(each.doubtful) for image, each in sorted(known.images.items()) if each.doubtful}
        known.images = {image: _Arrivals(each.known) for image, each in known.images.items()}
        return msgspec.json.encode(known) if found else None

    with suppress(OSError):
        change_file(_name_file(repository_id), _MAX_BYTES, accept, makes=False)
        return found
    return {}


def _name_file(repository_id: str) -> str:
    return f"{repository_id}.arrivals.json"


def _find_doubtful(before: _Arrivals | None, moments: Mapping[SnapshotRef, datetime], now: datetime) -> frozenset[str]:
    known = set(before.known if before else ())
    found = set(before.doubtful if before else ()) & {ref.id for ref in moments}
    newest = max((ref.time for ref in moments if ref.id in known - found), default="")
    for ref in moments:
        if ref.id not in known and (ref.time < newest or moments[ref] > now + CLOCK_SKEW):
            found.add(ref.id)
    return frozenset(found)


def _parse(data: bytes | None) -> _Document:
    with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return msgspec.json.decode(data or b"{}", type=_Document)
    return _Document()
