# SPDX-License-Identifier: Apache-2.0
"""The kinds of object that a repository consists of: folder, largest size, and how their content is built and parsed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from msgspec import Struct

from deltaimg.format.annotation import ANNOTATIONS, build_annotation, parse_annotation
from deltaimg.format.config import CONFIG_NAME, build_config, parse_config
from deltaimg.format.deletion import (
    DELETIONS,
    build_deletion,
    build_deletion_locks,
    parse_deletion,
    parse_deletion_locks,
)
from deltaimg.format.framing import HEADER_BYTES, Kind
from deltaimg.format.index import INDEXES, build_index, parse_index
from deltaimg.format.key_slot import KEYS, build_key_slot, parse_key_slot
from deltaimg.format.limits import (
    MAX_DOCUMENT_BYTES,
    MAX_LIST_BYTES,
    MAX_LOCK_BYTES,
    MAX_PACK_BYTES,
    MAX_PARITY_OBJECT_BYTES,
    MAX_TABLE_BYTES,
)
from deltaimg.format.lock import LOCKS, build_lock, parse_lock
from deltaimg.format.manifest import SNAPSHOTS, build_manifest, parse_manifest
from deltaimg.format.map import MAPS, build_map, parse_map
from deltaimg.format.pack import PACKS
from deltaimg.format.parity import PARITY as PARITY_FOLDER
from deltaimg.format.roster import ROSTERS, build_roster, parse_roster
from deltaimg.format.signature import SIGNATURES, build_signature, parse_signature
from deltaimg.format.verified import VERIFIED as VERIFIED_OBJECT
from deltaimg.format.verified import build_verified, parse_verified

RESERVE_NAME: Final = "reserve"
BENCHMARKS: Final = "benchmark/"
PROBES: Final = "probes/"
VERIFIED_NAME: Final = VERIFIED_OBJECT

Content = TypeVar("Content")


class ObjectKind(Struct, Generic[Content], frozen=True):
    """What all objects of a kind have in common. `Content` is the parsed content of one."""

    folder: str
    """The folder of its objects, with its slash; the whole name where there is only one object of the kind."""
    magic: Kind | None
    """What its header begins with; None where objects have no header."""
    max_bytes: int
    """The whole object, its header included."""
    parse: Callable[[bytes, str], Content]
    """From bytes and name to content; raises IntegrityError or UnsupportedFormat."""
    build: Callable[[Content], bytes]
    names: re.Pattern[str] | None = None
    """Of objects within the folder; None where `keys.find_kind` looks closer."""
    is_named_by_digest: bool = False
    """Whether the name is the digest of the object's bytes."""
    is_read_in_pieces: bool = False
    """Whether it is useful even with a damaged header."""
    is_sealed: bool = False
    """Whether it is sealed as a whole in an encrypted repository."""
    is_of_backups: bool = False
    """Whether backups write it, and so write-only hosts may."""

    def name_of(self, digest: str) -> str:
        """Return the name in the store of the object with this digest, which is 64 hexadecimal digits."""
        return f"{self.folder}{digest[:2]}/{digest}" if self.folder == PACKS else self.folder + digest

    def __repr__(self) -> str:
        return f"<ObjectKind {self.folder}>"


def _parse_bytes(data: bytes, _name: str) -> bytes:
    return data


def _build_bytes(data: bytes) -> bytes:
    return data


_DIGEST = re.compile(r"[0-9a-f]{64}")
_TOKEN = re.compile(r"[0-9a-f]{16}")
_PACK_NAME = re.compile(r"([0-9a-f]{2})/\1[0-9a-f]{62}")
_DOCUMENT_BYTES = HEADER_BYTES + MAX_DOCUMENT_BYTES

CONFIG: Final = ObjectKind(CONFIG_NAME, Kind.CONFIG, _DOCUMENT_BYTES, parse_config, build_config)
VERIFIED: Final = ObjectKind(
    VERIFIED_NAME, Kind.VERIFIED, MAX_TABLE_BYTES, parse_verified, build_verified, is_sealed=True
)
RESERVE: Final = ObjectKind(RESERVE_NAME, None, MAX_PACK_BYTES, _parse_bytes, _build_bytes)
"""Reserved room; its content has no meaning."""
PACK: Final = ObjectKind(
    PACKS,
    Kind.PACK,
    MAX_PACK_BYTES,
    _parse_bytes,
    _build_bytes,
    _PACK_NAME,
    is_named_by_digest=True,
    is_read_in_pieces=True,
)
INDEX: Final = ObjectKind(
    INDEXES,
    Kind.INDEX,
    MAX_TABLE_BYTES,
    parse_index,
    build_index,
    _DIGEST,
    is_named_by_digest=True,
    is_sealed=True,
    is_of_backups=True,
)
SIGNATURE: Final = ObjectKind(
    SIGNATURES,
    Kind.SIGNATURE,
    MAX_TABLE_BYTES,
    parse_signature,
    build_signature,
    _DIGEST,
    is_named_by_digest=True,
    is_sealed=True,
    is_of_backups=True,
)
MAP: Final = ObjectKind(
    MAPS,
    Kind.MAP,
    MAX_TABLE_BYTES,
    parse_map,
    build_map,
    _DIGEST,
    is_named_by_digest=True,
    is_sealed=True,
    is_of_backups=True,
)
PARITY: Final = ObjectKind(
    PARITY_FOLDER,
    Kind.PARITY,
    MAX_PARITY_OBJECT_BYTES,
    _parse_bytes,
    _build_bytes,
    _DIGEST,
    is_named_by_digest=True,
    is_read_in_pieces=True,
)
MANIFEST: Final = ObjectKind(
    SNAPSHOTS, Kind.MANIFEST, _DOCUMENT_BYTES, parse_manifest, build_manifest, is_sealed=True, is_of_backups=True
)
ANNOTATION: Final = ObjectKind(
    ANNOTATIONS, Kind.ANNOTATION, _DOCUMENT_BYTES, parse_annotation, build_annotation, is_sealed=True
)
ROSTER: Final = ObjectKind(
    ROSTERS, Kind.ROSTER, HEADER_BYTES + MAX_LIST_BYTES, parse_roster, build_roster, is_sealed=True
)
KEY_SLOT: Final = ObjectKind(KEYS, Kind.KEY_SLOT, _DOCUMENT_BYTES, parse_key_slot, build_key_slot, _TOKEN)
LOCK: Final = ObjectKind(LOCKS, Kind.LOCK, HEADER_BYTES + MAX_LOCK_BYTES, parse_lock, build_lock)
DELETION: Final = ObjectKind(
    DELETIONS, Kind.DELETION, HEADER_BYTES + MAX_LIST_BYTES, parse_deletion, build_deletion, _TOKEN
)
DELETION_LOCKS: Final = ObjectKind(
    DELETIONS, Kind.DELETION_LOCKS, _DOCUMENT_BYTES, parse_deletion_locks, build_deletion_locks, _TOKEN
)
BENCHMARK: Final = ObjectKind(BENCHMARKS, None, MAX_PACK_BYTES, _parse_bytes, _build_bytes, _TOKEN)
"""What `deltaimg benchmark` writes, reads and removes."""
PROBE: Final = ObjectKind(PROBES, None, 64, _parse_bytes, _build_bytes, _TOKEN)
"""What `store_trial` stores and removes, to find out what a store does."""
