# SPDX-License-Identifier: Apache-2.0
"""`condemned/<id>`: what prune is about to delete, and whose end it waits for. Replaced as that goes on, removed at the end."""

from __future__ import annotations

from typing import Annotated

import msgspec

from deltaimg.format.config import Hex64
from deltaimg.format.documents import build_document, parse_document
from deltaimg.format.framing import Kind
from deltaimg.format.limits import MAX_LIST_BYTES

CONDEMNED = "condemned/"

Hex16 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]


class Condemned(msgspec.Struct, frozen=True, kw_only=True):
    """Objects by kind. They are still there, but no new backup uses them, and they go once nobody can be using them."""

    id: Hex16
    created: str
    packs: tuple[Hex64, ...] = ()
    indexes: tuple[Hex64, ...] = ()
    signatures: tuple[Hex64, ...] = ()
    maps: tuple[Hex64, ...] = ()
    waits_for: tuple[str, ...] | None = None
    """Tokens of the locks that stood once this was durable; None while they have not been listed yet."""

    @property
    def object_name(self) -> str:
        return CONDEMNED + self.id


def build_condemned(condemned: Condemned) -> bytes:
    """Return a list of condemned objects."""
    return build_document(Kind.CONDEMNED, condemned)


def parse_condemned(data: bytes, name: str) -> Condemned:
    """Read a list of condemned objects; raises IntegrityError or UnsupportedFormat."""
    return parse_document(Kind.CONDEMNED, name, data, Condemned, max_bytes=MAX_LIST_BYTES)
