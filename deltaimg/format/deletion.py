# SPDX-License-Identifier: Apache-2.0
"""`deletions/<id>`: what a prune is about to delete; `deletions/<id>-locks`: whose end that waits for.

Both are written once, the second when the first is durable. Both are removed when all that is listed is deleted.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from deltaimg.errors import Malformed
from deltaimg.format.config import Hex64
from deltaimg.format.documents import build_document, parse_document
from deltaimg.format.framing import HEADER_BYTES, Kind
from deltaimg.format.limits import MAX_LIST_BYTES

DELETIONS = "deletions/"
LOCKS_SUFFIX = "-locks"

Hex16 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]


class Deletion(msgspec.Struct, frozen=True, kw_only=True):
    """Objects pending deletion, by kind. They are still there, but no new backup uses them."""

    id: Hex16
    created: str
    packs: tuple[Hex64, ...] = ()
    indexes: tuple[Hex64, ...] = ()
    signatures: tuple[Hex64, ...] = ()
    maps: tuple[Hex64, ...] = ()

    @property
    def object_name(self) -> str:
        """Its name in the store."""
        return DELETIONS + self.id


class DeletionLocks(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of the locks that were held once the list of this id was durable: it is carried out once they are released."""

    id: Hex16
    waits_for: tuple[str, ...]

    @property
    def object_name(self) -> str:
        """Its name in the store."""
        return DELETIONS + self.id + LOCKS_SUFFIX


def build_deletion(deletion: Deletion) -> bytes:
    """Return a list of objects pending deletion."""
    return build_document(Kind.DELETION, deletion)


def parse_deletion(data: bytes, name: str) -> Deletion:
    """Read a list of objects pending deletion; raises IntegrityError or UnsupportedFormat."""
    deletion = parse_document(Kind.DELETION, name, data, Deletion, max_bytes=MAX_LIST_BYTES)
    if deletion.object_name != name:
        raise Malformed(name, HEADER_BYTES, f"it belongs at {deletion.object_name}")
    return deletion


def build_deletion_locks(locks: DeletionLocks) -> bytes:
    """Return the list of locks that a deletion waits for."""
    return build_document(Kind.DELETION_LOCKS, locks)


def parse_deletion_locks(data: bytes, name: str) -> DeletionLocks:
    """Read the list of locks that a deletion waits for; raises IntegrityError or UnsupportedFormat."""
    locks = parse_document(Kind.DELETION_LOCKS, name, data, DeletionLocks)
    if locks.object_name != name:
        raise Malformed(name, HEADER_BYTES, f"it belongs at {locks.object_name}")
    return locks
