# SPDX-License-Identifier: Apache-2.0
"""`snapshots/<image>/<time>-<id>`: what a snapshot is made of. Its appearance is the commit of a backup.

Always  a manifest is written once and never changed: later changes of tags, comment and pin are in annotations.
Always  a manifest lists all maps that its snapshot needs: no other manifest is read to restore it.
"""

from __future__ import annotations

import itertools
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import msgspec

from deltaimg.errors import Malformed
from deltaimg.format.config import Hex32, Hex64
from deltaimg.format.documents import build_document, parse_document
from deltaimg.format.framing import HEADER_BYTES, Kind
from deltaimg.format.limits import (
    MAX_GROUP_MEMBERS,
    MAX_LAYERS,
    MAX_REASON_CHARACTERS,
    MAX_REMARK_CHARACTERS,
    MAX_TAG_CHARACTERS,
    MAX_TAGS,
    MAX_UNREADABLE_EXTENTS,
)
from deltaimg.model import MAX_BLOCK_BYTES, MAX_NAME_BYTES, MIN_BLOCK_BYTES, Extent, Size

SNAPSHOTS = "snapshots/"
TIME_FORMAT = "%Y%m%dT%H%M%S.%fZ"
MAX_YEAR = 9999
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_OBJECT_NAME = re.compile(r"snapshots/(?P<image>[^/]+)/(?P<time>[0-9]{8}T[0-9]{6}\.[0-9]{6}Z)-(?P<id>[0-9a-f]{16})")

SnapshotId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]
Tags = Annotated[
    tuple[Annotated[str, msgspec.Meta(max_length=MAX_TAG_CHARACTERS)], ...], msgspec.Meta(max_length=MAX_TAGS)
]
Count = Annotated[int, msgspec.Meta(ge=0)]
Remark = Annotated[str, msgspec.Meta(max_length=MAX_REMARK_CHARACTERS)]
"""A comment, or the reason of a pin."""


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup read, found and stored, in bytes. The names are those of `backup --json`."""

    apparent_bytes: Size
    allocated_bytes: Size
    read_bytes: Size
    changed_bytes: Size
    referenced_bytes: Size
    new_bytes: Size
    stored_bytes: Size
    duration_s: float
    rewritten_bytes: Size = 0
    rewritten_payload_bytes: Size = 0


class Freezing(msgspec.Struct, frozen=True, kw_only=True):
    """How the image was frozen while it was read. The names are those of `backup --json`."""

    method: str
    """`reflink`, `btrfs`, `lvm`, `hook`, `qmp`; `none`: it was read as it is, for the reason that follows."""
    reason: str = ""
    """Why none that comes before it could be used, for people."""
    frozen_s: float = 0.0
    """How long its writers were stopped, in seconds; where they were not, how long it took to make the point in time."""
    used_bytes: Size = 0
    """Of an LVM snapshot: how much of its room was taken in the end."""


class Tracking(msgspec.Struct, frozen=True, kw_only=True):
    """What change tracking spared the backup. The names are those of `backup --json`."""

    method: str
    """`hints`, `reflink`, `bitmap`, `thin`; `scan`: everything was read, for the reason that follows."""
    reason: str = ""
    """Why nothing better was used, for people."""
    last_scan: str | None = None
    """The `time` of the newest snapshot before this one for which everything was read; None where this one is such."""
    unchanged_bytes: Size = 0
    """What was taken from the base without being read."""
    audited_blocks: Count = 0
    """Blocks that were read although they were said to be unchanged: a random sample."""
    refuted_blocks: Count = 0
    """Those of them, and of what was read beside changes, that had changed; everything was read then."""


class FreeSpaceSkipped(msgspec.Struct, frozen=True, kw_only=True):
    """What was left out as its file system had it free. The names are those of `backup --json`."""

    skipped_bytes: Size = 0
    """What is a hole in the snapshot, and may be anything on the image."""
    reason: Annotated[str, msgspec.Meta(max_length=MAX_REASON_CHARACTERS)] = ""
    """Why not more, for people."""


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """The group that an image was backed up with: a snapshot of it is all snapshots of its members that have one `time`."""

    name: str
    members: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=MAX_GROUP_MEMBERS)]
    """The images, each called `<group>.<disk>`. Where one has no snapshot of that time, the group's is incomplete."""
    spread_s: float = 0.0
    """How long after the first member the last was frozen, in seconds; 0 where their writers were stopped meanwhile."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One snapshot."""

    id: SnapshotId
    image: str
    time: str
    """When it was taken, or the earlier time it was given; moved to just after the previous snapshot if the clock was set
    back. Sorts as text."""
    base: SnapshotId | None
    """The snapshot that the image was compared with. For people: nothing of it is needed, and it may be forgotten."""
    base_time: str | None
    size_bytes: Size
    block_bytes: int
    maps: Annotated[tuple[Hex64, ...], msgspec.Meta(min_length=1, max_length=MAX_LAYERS)]
    """Map layers: the full map first, then each one that lies over those before it."""
    root_digest: Hex32
    statistics: Statistics
    started: str
    """When the run began and ended by the clock of its host, in the form of `time`. Records that are indexed since it began
    are its own, all others it found."""
    ended: str
    tags: Tags = ()
    comment: Remark = ""
    is_live: bool = False
    """The image was in use or written to while it was read, and the operator accepted that."""
    container: str = ""
    """The format that the bytes are in, such as qcow2, where they were stored as they are; empty for a flat image."""
    unreadable: Annotated[tuple[Extent, ...], msgspec.Meta(max_length=MAX_UNREADABLE_EXTENTS)] = ()
    """What could not be read and is zeros here: [start, end) in bytes, ascending and apart."""
    freeze: Freezing | None = None
    """None where that was not asked for."""
    tracking: Tracking | None = None
    """None where none was asked for: everything was read."""
    free_space: FreeSpaceSkipped | None = None
    """None where free space was kept."""
    group: Group | None = None
    """None of an image that was backed up by itself."""
    source: str = ""
    host: str = ""
    software: str = ""

    @property
    def taken_at(self) -> datetime:
        """The moment of the snapshot."""
        return parse_time(self.time)

    @property
    def ended_at(self) -> datetime:
        """When the backup ended."""
        return parse_time(self.ended)

    @property
    def started_us(self) -> int:
        """When the run began, in microseconds since 1970."""
        return count_microseconds(parse_time(self.started))

    @property
    def base_taken_at(self) -> datetime | None:
        """The moment of the base; None without a base."""
        return None if self.base_time is None else parse_time(self.base_time)

    @property
    def last_scan(self) -> str:
        """The `time` of the newest snapshot up to this one for which everything was read."""
        return self.time if self.tracking is None else self.tracking.last_scan or self.time

    @property
    def object_name(self) -> str:
        """Its name in the store."""
        return f"{SNAPSHOTS}{self.image}/{self.time}-{self.id}"

    @property
    def label(self) -> str:
        """The snapshot as people name it."""
        return f"{self.image}@{self.id[:8]}"

    @property
    def root_digest_bytes(self) -> bytes:
        """The root digest, 16 bytes."""
        return bytes.fromhex(self.root_digest)


def find_name_problem(name: str) -> str | None:
    """Return why `name` cannot name an image, or None when it can."""
    if not name:
        return "is empty"
    if len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES:
        return f"is longer than {MAX_NAME_BYTES} bytes"
    if any(0xD800 <= ord(character) <= 0xDFFF for character in name):
        return "is not valid UTF-8"
    if not name.isprintable():
        return "has control characters"
    if name[0] in ".-" or name != name.strip():
        return "begins with a dot, a dash or a space, or ends with a space"
    if name == "lost+found":
        return "is what file systems call a folder of their own"
    if bad := sorted({character for character in name if character in "/\\@~*?"}):
        return f"has {' '.join(bad)}"
    return None


def format_time(moment: datetime) -> str:
    """Return `moment` as manifests and their names have it: UTC, to the microsecond, sorting as text."""
    return moment.astimezone(UTC).strftime(TIME_FORMAT)


def count_microseconds(moment: datetime) -> int:
    """Return the microseconds from 1970 to `moment`, as index objects have them."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def from_microseconds(count: int) -> datetime:
    """Return the moment this many microseconds after 1970 began."""
    return _EPOCH + timedelta(microseconds=count)


def parse_time(text: str) -> datetime:
    """Return the moment that `format_time` made `text` of; raises ValueError."""
    return datetime.strptime(text, TIME_FORMAT).replace(tzinfo=UTC)


def is_time(text: str) -> bool:
    """Return whether `text` is what `format_time` makes of a moment that has a next one."""
    try:
        moment = parse_time(text)
    except ValueError:
        return False
    return moment.year < MAX_YEAR and format_time(moment) == text


def split_object_name(name: str) -> tuple[str, str, str] | None:
    """Return (image, time, snapshot id) of a manifest's object name, or None when it is none."""
    match = _OBJECT_NAME.fullmatch(name)
    return (match["image"], match["time"], match["id"]) if match else None


def build_manifest(manifest: Manifest) -> bytes:
    """Return a manifest object."""
    return build_document(Kind.MANIFEST, manifest)


def parse_manifest(data: bytes, name: str) -> Manifest:
    """Read the manifest at object `name`; raises IntegrityError or UnsupportedFormat.

    Its own image, time and id must be those of its name, so that no manifest can be swapped for another.
    """
    manifest = parse_document(Kind.MANIFEST, name, data, Manifest)
    if problem := find_name_problem(manifest.image):
        raise Malformed(name, HEADER_BYTES, f"its image name {problem}")
    for field in ("time", "started", "ended", "base_time"):
        text = getattr(manifest, field)
        if text is not None and not is_time(text):
            raise Malformed(name, HEADER_BYTES, f"its {field} is not a time")
    if not is_time(manifest.last_scan):
        raise Malformed(name, HEADER_BYTES, "its last_scan is not a time")
    if manifest.object_name != name:
        raise Malformed(name, HEADER_BYTES, f"it belongs at {manifest.object_name}")
    if len(set(manifest.maps)) != len(manifest.maps):
        raise Malformed(name, HEADER_BYTES, "it lists a map twice")
    size = manifest.block_bytes
    if not MIN_BLOCK_BYTES <= size <= MAX_BLOCK_BYTES or size & (size - 1):
        raise Malformed(name, HEADER_BYTES, f"its block size is {size} bytes")
    if (manifest.base is None) != (manifest.base_time is None):
        raise Malformed(name, HEADER_BYTES, "only one of base and base_time is there")
    edges = [edge for extent in manifest.unreadable for edge in (extent.start, extent.end)]
    if edges and (edges[-1] > manifest.size_bytes or any(a >= b for a, b in itertools.pairwise(edges))):
        raise Malformed(name, HEADER_BYTES, "its unreadable extents are not ascending, or are past its end")
    if problem := _find_group_problem(manifest):
        raise Malformed(name, HEADER_BYTES, problem)
    return manifest


def name_member(group: str, disk: str) -> str:
    """Return the name of the image that a disk of a group is."""
    return f"{group}.{disk}"


def _find_group_problem(manifest: Manifest) -> str | None:
    group = manifest.group
    if group is None:
        return None
    prefix = name_member(group.name, "")
    if find_name_problem(group.name) or any(find_name_problem(each) for each in group.members):
        return "its group has a name that is not valid"
    if any(not each.startswith(prefix) or each == prefix for each in group.members):
        return f"its group has a member whose name does not begin with {prefix}"
    if len(set(group.members)) != len(group.members) or manifest.image not in group.members:
        return "its group has a member twice, or not this image"
    return None
