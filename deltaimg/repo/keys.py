# SPDX-License-Identifier: Apache-2.0
"""Which names in a store are those of a repository's objects, and of what kind each is.

Sync tools, file managers, NFS and users leave other files in a repository. A file with a name that deltaimg never
writes is not listed, read or deleted.
"""

from __future__ import annotations

import re
from typing import Any, Final

from deltaimg.errors import DigestMismatch, Malformed, ObjectTooLarge
from deltaimg.format.annotation import split_annotation_name
from deltaimg.format.deletion import LOCKS_SUFFIX
from deltaimg.format.framing import name_object
from deltaimg.format.lock import MAINTENANCE_SCOPE, split_claim_name
from deltaimg.format.manifest import find_name_problem, split_object_name
from deltaimg.format.roster import split_roster_name
from deltaimg.repo.object_kinds import (
    ANNOTATION,
    BENCHMARK,
    CONFIG,
    DELETION,
    DELETION_LOCKS,
    INDEX,
    KEY_SLOT,
    LOCK,
    MANIFEST,
    MAP,
    PACK,
    PARITY,
    PROBE,
    RESERVE,
    ROSTER,
    SIGNATURE,
    VERIFIED,
    ObjectKind,
)

QUARANTINE: Final = "quarantine/"

_PACK_FOLDER = re.compile(r"[0-9a-f]{2}")
_OWN_LOCK = re.compile(r"\.(?:reader|alive)-[0-9a-f]{16}")
_REPEATED = re.compile(r"\.[0-9]{1,3}")

_LONE = {kind.folder: kind for kind in (CONFIG, VERIFIED, RESERVE)}
_FOLDERS: dict[str, ObjectKind[Any]] = {
    kind.folder: kind
    for kind in (
        PACK,
        INDEX,
        SIGNATURE,
        MAP,
        PARITY,
        MANIFEST,
        ANNOTATION,
        LOCK,
        BENCHMARK,
        PROBE,
        DELETION,
        KEY_SLOT,
        ROSTER,
    )
}


def find_kind(name: str) -> ObjectKind[Any] | None:
    """Return the kind of the object of this name, in quarantine too; None for a name that no object of a repository has."""
    if name in _LONE:
        return _LONE[name]
    top, slash, rest = name.partition("/")
    kind = _FOLDERS.get(top + slash)
    if kind is None:
        return _find_quarantined(rest) if top + slash == QUARANTINE else None
    if kind is DELETION and rest.endswith(LOCKS_SUFFIX):
        kind, rest = DELETION_LOCKS, rest.removesuffix(LOCKS_SUFFIX)
    if kind.names is not None:
        return kind if kind.names.fullmatch(rest) else None
    if kind is LOCK:
        return kind if _OWN_LOCK.fullmatch(rest) or _is_claim(name) else None
    parts = split_object_name(name) or split_annotation_name(name) or split_roster_name(name)
    return kind if parts is not None and find_name_problem(parts[0]) is None else None


def expect_kind(name: str) -> ObjectKind[Any]:
    """Return the kind of the object of this name; raises Malformed for a name that no object of a repository has."""
    kind = find_kind(name)
    if kind is None:
        raise Malformed(name, 0, "is not named as an object of a repository is")
    return kind


def _is_claim(name: str) -> bool:
    parts = split_claim_name(name)
    return parts is not None and _is_scope(parts[0])


def _is_scope(name: str) -> bool:
    """Return whether a lock can be of this: an image, or all that images share."""
    return name == MAINTENANCE_SCOPE or find_name_problem(name) is None


def _find_quarantined(name: str) -> ObjectKind[Any] | None:
    """Return the kind of an object in quarantine, where a second one of the same name has a number behind it."""
    before, dot, number = name.rpartition(".")
    is_repeated = _REPEATED.fullmatch(dot + number) is not None
    return find_kind(name) or (find_kind(before) if is_repeated else None)


def has_folder(name: str) -> bool:
    """Return whether objects of a repository can be in the folder of this name, which ends without a slash."""
    top, _, rest = name.partition("/")
    if f"{top}/" == QUARANTINE:
        return not rest or has_folder(rest)
    kind = _FOLDERS.get(f"{top}/")
    if kind is None:
        return False
    if kind is PACK:
        return not rest or _PACK_FOLDER.fullmatch(rest) is not None
    if kind is LOCK:
        return not rest or ("/" not in rest and _is_scope(rest))
    if kind in (MANIFEST, ANNOTATION, ROSTER):
        return not rest or ("/" not in rest and find_name_problem(rest) is None)
    return not rest


def is_named_by_digest(name: str) -> bool:
    """Return whether an object of this name has the digest of its bytes for a name."""
    kind = find_kind(name)
    return kind is not None and kind.is_named_by_digest


def digest_of(name: str) -> str:
    """Return the digest in the name of an object that is named by one, as 64 hexadecimal digits."""
    return name.rpartition("/")[2]


def has_own_digest(name: str, data: bytes | memoryview) -> bool:
    """Return whether `data` are the bytes that the digest in this name is of."""
    return name_object([data]) == digest_of(name)


def check_digest(name: str, data: bytes) -> None:
    """Raise DigestMismatch unless the digest in this name is that of `data`."""
    expected, found = digest_of(name), name_object([data])
    if found != expected:
        raise DigestMismatch(name, 0, "the object", bytes.fromhex(expected), bytes.fromhex(found))


def check_size(name: str, size_bytes: int) -> None:
    """Raise ObjectTooLarge for an object that is larger than any of its kind; it is to be read in pieces."""
    kind = find_kind(name)
    if kind is not None and size_bytes > kind.max_bytes:
        raise ObjectTooLarge(name, size_bytes, kind.max_bytes)
