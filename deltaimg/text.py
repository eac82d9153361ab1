# SPDX-License-Identifier: Apache-2.0
"""Text that comes from outside, such as names of files, hosts and users, made fit for documents and messages."""

from __future__ import annotations

MAX_CHARACTERS = 4096
"""Of what a document may have; paths are the longest."""


def as_text(text: str) -> str:
    """Return `text`, such as a path or a name of the system, as documents can have it.

    What is not printable, and bytes that are no UTF-8, are shown by their numbers; the end of a long text is cut off.
    """
    shown = "".join(each if each.isprintable() else _show(each) for each in text)
    return shown if len(shown) <= MAX_CHARACTERS else f"{shown[: MAX_CHARACTERS - 1]}…"


def _show(character: str) -> str:
    """Return the replacement of a character that is not printable, which may be a byte of a name that is no UTF-8."""
    number = ord(character) - 0xDC00
    return f"\\x{number:02x}" if 0x80 <= number <= 0xFF else character.encode("unicode_escape").decode()
