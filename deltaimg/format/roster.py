# SPDX-License-Identifier: Apache-2.0
"""`rosters/<image>/<number>`: which snapshots an image has, as the last run that changed that recorded it.

Only in encrypted repositories, where none but those who have the key can make one. A snapshot of the roster that is missing is
withheld by the store, one that is there and not in the roster was put back; `unsettled` ones may be there or not.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

import msgspec

from deltaimg.errors import Malformed
from deltaimg.format.config import Hex32
from deltaimg.format.documents import build_document, parse_document
from deltaimg.format.framing import HEADER_BYTES, Kind
from deltaimg.format.limits import MAX_LIST_BYTES, MAX_ROSTER_TRAIL
from deltaimg.format.manifest import SnapshotId, find_name_problem, is_time

ROSTERS: Final = "rosters/"
MAX_NUMBER: Final = 99_999_999
Hex48 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{48}\Z")]
_OBJECT_NAME = re.compile(r"rosters/(?P<image>[^/]+)/(?P<number>[0-9]{8})")


class Roster(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The snapshots of one image."""

    repository_id: Hex32
    """Of the repository that it is part of: other members of the family have other snapshots."""
    image: str
    number: Annotated[int, msgspec.Meta(ge=1, le=MAX_NUMBER)]
    """Counts the rosters of the image."""
    time: str
    """When it was written, in the form of a manifest's `time`."""
    snapshots: tuple[SnapshotId, ...]
    """In order of their times."""
    unsettled: tuple[SnapshotId, ...] = ()
    """What the run that wrote it was about to add or to remove."""
    newest_time: str | None = None
    """The latest `time` of any snapshot that the image has ever had: a later one is of a backup that was cut off."""
    trail: Annotated[tuple[Hex32, ...], msgspec.Meta(max_length=MAX_ROSTER_TRAIL)] = ()
    """digest-16 of the stored bytes of the rosters before it, the latest first."""
    written: tuple[Hex48, ...] = ()
    """Of each of these snapshots that a write-only host made: its id, and digest-16 of its manifest's stored bytes."""
    removed: tuple[SnapshotId, ...] = ()
    """The write-only hosts whose keys were removed: they add no snapshots any more."""
    host: str = ""

    def find_written(self, snapshot: str) -> str | None:
        """Return digest-16 of the manifest of a snapshot that a write-only host made; None for another."""
        return next((each[16:] for each in self.written if each.startswith(snapshot)), None)

    @property
    def object_name(self) -> str:
        """Its name in the store."""
        return name_roster(self.image, self.number)


def name_roster(image: str, number: int) -> str:
    """Return the name in the store of a roster."""
    return f"{ROSTERS}{image}/{number:08d}"


def split_roster_name(name: str) -> tuple[str, int] | None:
    """Return (image, number) of a roster's object name, or None for any other name."""
    match = _OBJECT_NAME.fullmatch(name)
    return (match["image"], int(match["number"])) if match else None


def build_roster(roster: Roster) -> bytes:
    """Return a roster object."""
    return build_document(Kind.ROSTER, roster)


def parse_roster(data: bytes, name: str) -> Roster:
    """Read the roster at object `name`, which must be its own; raises IntegrityError or UnsupportedFormat."""
    roster = parse_document(Kind.ROSTER, name, data, Roster, max_bytes=MAX_LIST_BYTES)
    if problem := find_name_problem(roster.image):
        raise Malformed(name, HEADER_BYTES, f"its image name {problem}")
    for field in ("time", "newest_time"):
        text = getattr(roster, field)
        if text is not None and not is_time(text):
            raise Malformed(name, HEADER_BYTES, f"its {field} is not a time")
    if roster.object_name != name:
        raise Malformed(name, HEADER_BYTES, f"it belongs at {roster.object_name}")
    listed = (*roster.snapshots, *roster.unsettled)
    if len(set(listed)) != len(listed):
        raise Malformed(name, HEADER_BYTES, "it lists a snapshot twice")
    if not {each[:16] for each in roster.written} <= set(listed):
        raise Malformed(name, HEADER_BYTES, "it has the digest of a snapshot that it does not list")
    return roster
