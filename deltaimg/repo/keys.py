# SPDX-License-Identifier: Apache-2.0
"""Which names in a store are those of a repository's objects, what each may hold, and how large it may be.

Sync tools, file managers, NFS and people leave files of their own in a repository. Whatever has a name that no writer of ours
makes is not listed, read or deleted by anybody.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from deltaimg.errors import ObjectTooLarge
from deltaimg.format.annotation import ANNOTATIONS, split_annotation_name
from deltaimg.format.config import CONFIG_NAME
from deltaimg.format.deletion import DELETIONS, LOCKS_SUFFIX
from deltaimg.format.framing import HEADER_BYTES, Kind
from deltaimg.format.index import INDEXES
from deltaimg.format.limits import (
    MAX_DOCUMENT_BYTES,
    MAX_LIST_BYTES,
    MAX_LOCK_BYTES,
    MAX_PACK_BYTES,
    MAX_PARITY_OBJECT_BYTES,
    MAX_TABLE_BYTES,
)
from deltaimg.format.lock import LOCKS
from deltaimg.format.manifest import SNAPSHOTS, find_name_problem, split_object_name
from deltaimg.format.map import MAPS
from deltaimg.format.pack import PACKS
from deltaimg.format.parity import PARITY
from deltaimg.format.signature import SIGNATURES
from deltaimg.format.verified import VERIFIED
from deltaimg.repo.quarantine import QUARANTINE

RESERVE: Final = "reserve"
"""Room kept back; what is in it means nothing."""
BENCHMARKS: Final = "benchmark/"
"""What `benchmark` writes, reads and removes."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_TOKEN = re.compile(r"[0-9a-f]{16}")
_PACK = re.compile(r"([0-9a-f]{2})/\1[0-9a-f]{62}")
_PACK_FOLDER = re.compile(r"[0-9a-f]{2}")
_OWN_LOCK = re.compile(r"\.maintenance|\.(?:reader|alive)-[0-9a-f]{1,32}")
_REPEATED = re.compile(r"\.[0-9]{1,3}")


@dataclass(frozen=True, slots=True)
class ObjectKind:
    """What all objects of a folder have in common."""

    magic: Kind | None
    max_bytes: int
    """The whole object, its header included."""
    names: re.Pattern[str] | None = None
    """Of the object within its folder; None where `find_kind` looks closer."""
    is_named_by_digest: bool = False
    """Whether the name is the digest of the object's bytes."""
    is_read_in_pieces: bool = False
    """Whether it is of use though its header may be damaged."""


def _by_digest(magic: Kind, max_bytes: int = MAX_TABLE_BYTES, names: re.Pattern[str] = _DIGEST) -> ObjectKind:
    return ObjectKind(magic, max_bytes, names, is_named_by_digest=True, is_read_in_pieces=magic in _SELF_DESCRIBING)


_SELF_DESCRIBING = (Kind.PACK, Kind.PARITY)
_DOCUMENT_BYTES = HEADER_BYTES + MAX_DOCUMENT_BYTES
_FIXED = {
    CONFIG_NAME: ObjectKind(Kind.CONFIG, _DOCUMENT_BYTES),
    VERIFIED: ObjectKind(Kind.VERIFIED, MAX_TABLE_BYTES),
    RESERVE: ObjectKind(None, MAX_PACK_BYTES),
}
_FOLDERS = {
    PACKS: _by_digest(Kind.PACK, MAX_PACK_BYTES, _PACK),
    INDEXES: _by_digest(Kind.INDEX),
    SIGNATURES: _by_digest(Kind.SIGNATURE),
    MAPS: _by_digest(Kind.MAP),
    PARITY: _by_digest(Kind.PARITY, MAX_PARITY_OBJECT_BYTES),
    SNAPSHOTS: ObjectKind(Kind.MANIFEST, _DOCUMENT_BYTES),
    ANNOTATIONS: ObjectKind(Kind.ANNOTATION, _DOCUMENT_BYTES),
    LOCKS: ObjectKind(Kind.LOCK, HEADER_BYTES + MAX_LOCK_BYTES),
    BENCHMARKS: ObjectKind(None, MAX_PACK_BYTES, _TOKEN),
    DELETIONS: ObjectKind(Kind.DELETION, HEADER_BYTES + MAX_LIST_BYTES, _TOKEN),
}
_DELETION_LOCKS = ObjectKind(Kind.DELETION_LOCKS, _DOCUMENT_BYTES, _TOKEN)


def find_kind(name: str) -> ObjectKind | None:
    """Return of what kind the object of this name is, wherever in quarantine it may be; None for no object of ours."""
    if name in _FIXED:
        return _FIXED[name]
    top, slash, rest = name.partition("/")
    kind = _FOLDERS.get(top + slash)
    if kind is None:
        return _find_quarantined(rest) if top + slash == QUARANTINE else None
    if kind.magic is Kind.DELETION and rest.endswith(LOCKS_SUFFIX):
        kind, rest = _DELETION_LOCKS, rest.removesuffix(LOCKS_SUFFIX)
    if kind.names is not None:
        return kind if kind.names.fullmatch(rest) else None
    if kind.magic is Kind.LOCK:
        return kind if _OWN_LOCK.fullmatch(rest) or ("/" not in rest and find_name_problem(rest) is None) else None
    parts = split_object_name(name) or split_annotation_name(name)
    return kind if parts is not None and find_name_problem(parts[0]) is None else None


def _find_quarantined(name: str) -> ObjectKind | None:
    """Return the kind of an object in quarantine, where a second one of the same name has a number behind it."""
    before, dot, number = name.rpartition(".")
    is_repeated = _REPEATED.fullmatch(dot + number) is not None
    return find_kind(name) or (find_kind(before) if is_repeated else None)


def has_folder(name: str) -> bool:
    """Tell whether objects of a repository can lie in the folder of this name, which ends without a slash."""
    top, _, rest = name.partition("/")
    if f"{top}/" == QUARANTINE:
        return not rest or has_folder(rest)
    if f"{top}/" not in _FOLDERS:
        return False
    if f"{top}/" == PACKS:
        return not rest or _PACK_FOLDER.fullmatch(rest) is not None
    if f"{top}/" in (SNAPSHOTS, ANNOTATIONS):
        return not rest or ("/" not in rest and find_name_problem(rest) is None)
    return not rest


def is_named_by_digest(name: str) -> bool:
    """Tell whether an object of this name has the digest of its bytes for a name."""
    kind = find_kind(name)
    return kind is not None and kind.is_named_by_digest


def check_size(name: str, size_bytes: int) -> None:
    """Refuse an object that is larger than any of its kind: it is to be read in pieces; raises ObjectTooLarge."""
    kind = find_kind(name)
    if kind is not None and size_bytes > kind.max_bytes:
        raise ObjectTooLarge(name, size_bytes, kind.max_bytes)
