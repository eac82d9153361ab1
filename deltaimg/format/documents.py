# SPDX-License-Identifier: Apache-2.0
"""JSON bodies: typed both ways, so that a wrong field is an error and never a surprise.

Always  every text is printable, and no longer than a screen: what comes from the system is made so before it is written, and a
        reader refuses a document with any other. So nothing in a repository can lead a terminal or a log astray.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec

from deltaimg.errors import Malformed
from deltaimg.format.framing import HEADER_BYTES, Kind, frame, unframe
from deltaimg.format.limits import MAX_DOCUMENT_BYTES, MAX_TEXT_CHARACTERS
from deltaimg.text import as_text

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
        document = msgspec.json.decode(body, type=document_type)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(name, HEADER_BYTES, f"not a {kind.name.lower()}: {as_text(str(error))}") from error
    for text in _texts_of(document):
        if problem := find_text_problem(text):
            raise Malformed(name, HEADER_BYTES, f"a text of it {problem}")
    return document


def find_text_problem(text: str) -> str | None:
    """Return why no document can have `text`, or None."""
    if len(text) > MAX_TEXT_CHARACTERS:
        return f"has more than {MAX_TEXT_CHARACTERS} characters"
    if not text.isprintable():
        return "has characters that are not printable"
    return None


def find_note_problem(text: str, most_characters: int) -> str | None:
    """Return why `text`, which may be empty, cannot be something that people note in a line, or None."""
    if len(text) > most_characters or not text.isprintable():
        return f"is longer than {most_characters} letters or has control characters"
    return None


def _texts_of(value: Any) -> Iterator[str]:
    """Yield every text in a document."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, tuple):
        for each in value:
            yield from _texts_of(each)
    elif isinstance(value, msgspec.Struct):
        for field in value.__struct_fields__:
            yield from _texts_of(getattr(value, field))
