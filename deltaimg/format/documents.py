# SPDX-License-Identifier: Apache-2.0
"""JSON bodies: typed both ways, so that a wrong field is an error and never a surprise."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from deltaimg.errors import Malformed
from deltaimg.format.framing import HEADER_BYTES, Kind, frame, unframe
from deltaimg.format.limits import MAX_DOCUMENT_BYTES

Document = TypeVar("Document", bound=msgspec.Struct)


def build_document(kind: Kind, document: msgspec.Struct) -> bytes:
    """Return `document` as a whole object."""
    return frame(kind, msgspec.json.encode(document))


def parse_document(
    kind: Kind, name: str, data: bytes, document_type: type[Document], *, max_bytes: int = MAX_DOCUMENT_BYTES
) -> Document:
    """Read the JSON document in object `name`.

    Raises:
        IntegrityError, UnsupportedFormat: as `unframe`; Malformed when a field is missing or of the wrong type or range.
    """
    body = unframe(kind, name, data)
    if len(body) > max_bytes:
        raise Malformed(name, HEADER_BYTES, f"a {kind.name.lower()} of {len(body)} bytes; the limit is {max_bytes}")
    try:
        return msgspec.json.decode(body, type=document_type)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(name, HEADER_BYTES, f"not a {kind.name.lower()}: {error}") from error
