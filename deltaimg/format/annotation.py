# SPDX-License-Identifier: Apache-2.0
"""`annotations/<image>/<snapshot id>-<number>`: what was said about a snapshot after its backup: pin, tags, comment.

Each change is an object of its own with the next number, and has all that is said; the valid one with the highest number
counts. Without any, the tags and the comment of the manifest count, and the snapshot is not pinned.
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from deltaimg.errors import Malformed
from deltaimg.format.documents import build_document, find_note_problem, parse_document
from deltaimg.format.framing import HEADER_BYTES, Kind
from deltaimg.format.limits import MAX_REMARK_CHARACTERS, MAX_TAG_CHARACTERS
from deltaimg.format.manifest import Remark, SnapshotId, Tags, find_name_problem, is_time

ANNOTATIONS = "annotations/"
MAX_NUMBER = 99_999_999
_OBJECT_NAME = re.compile(r"annotations/(?P<image>[^/]+)/(?P<id>[0-9a-f]{16})-(?P<number>[0-9]{8})")


class Annotation(msgspec.Struct, frozen=True, kw_only=True):
    """All that is said about one snapshot."""

    image: str
    snapshot: SnapshotId
    number: Annotated[int, msgspec.Meta(ge=1, le=MAX_NUMBER)]
    time: str
    """When it was said, in the form of a manifest's `time`."""
    pinned: Remark | None = None
    """Why no policy may forget the snapshot, perhaps an empty text; null in one that is not pinned."""
    tags: Tags = ()
    comment: Remark = ""
    owner: str = ""
    """Who said it: the user's name, and the host below."""
    host: str = ""

    @property
    def object_name(self) -> str:
        """Its name in the store."""
        return f"{ANNOTATIONS}{self.image}/{self.snapshot}-{self.number:08d}"


def split_annotation_name(name: str) -> tuple[str, str, int] | None:
    """Return (image, snapshot id, number) of an annotation's object name, or None for any other name."""
    match = _OBJECT_NAME.fullmatch(name)
    return (match["image"], match["id"], int(match["number"])) if match else None


def build_annotation(annotation: Annotation) -> bytes:
    """Return an annotation object."""
    return build_document(Kind.ANNOTATION, annotation)


def parse_annotation(data: bytes, name: str) -> Annotation:
    """Read the annotation at object `name`, which must be its own; raises IntegrityError or UnsupportedFormat."""
    annotation = parse_document(Kind.ANNOTATION, name, data, Annotation)
    if problem := find_name_problem(annotation.image):
        raise Malformed(name, HEADER_BYTES, f"its image name {problem}")
    if not is_time(annotation.time):
        raise Malformed(name, HEADER_BYTES, "its time is not a time")
    if annotation.object_name != name:
        raise Malformed(name, HEADER_BYTES, f"it belongs at {annotation.object_name}")
    return annotation


TAGS_HINT = "name several tags one by one: 'backup --tag a --tag b', 'tag add SNAPSHOT a b'"
"""What to do where several were given as one."""


def find_tag_problem(tag: str) -> str | None:
    """Return why `tag` cannot be one, or None. Policies name several with commas between them."""
    if not tag or tag != tag.strip() or "," in tag:
        return "is empty, has a comma, or begins or ends with a space"
    return find_note_problem(tag, MAX_TAG_CHARACTERS)


def find_remark_problem(text: str) -> str | None:
    """Return why `text`, which may be empty, cannot be a comment or the reason of a pin, or None."""
    return find_note_problem(text, MAX_REMARK_CHARACTERS)
