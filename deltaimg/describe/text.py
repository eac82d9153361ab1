# SPDX-License-Identifier: Apache-2.0
"""How values look to people: sizes, durations, moments; and text from anywhere, made safe for a terminal."""

from __future__ import annotations

import os
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

_INVISIBLE_RANGES = (
    (0x034F, 0x034F),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x2800, 0x2800),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFFA0, 0xFFA0),
    (0xE0100, 0xE01EF),
)
"""Characters that count as printable and show nothing, from first to last: joiners, fillers, selectors."""


def format_bytes(count: float) -> str:
    """Return a size as people read it: `512 B`, `1.4 MiB`, `310 GiB`."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if abs(size) < 1000 or unit == "PiB":
            return f"{size:.0f} {unit}" if unit == "B" or abs(size) >= 99.95 else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError


def format_seconds(seconds: float) -> str:
    """Return a duration as people read it: `0.4 s`, `3 min 20 s`, `2 h 5 min`."""
    if round(seconds) < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def format_count(count: int, noun: str) -> str:
    """Return `1 record`, `2 records`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def format_moment(moment: datetime, *, to_minutes: bool = False) -> str:
    """Return a time in the local zone, to the second or the minute."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M" if to_minutes else "%Y-%m-%d %H:%M:%S")


def format_line(text: str) -> str:
    """Return text on one line, with everything escaped that a terminal would obey, hide or reorder.

    That is control characters, marks of writing direction, and characters without width: a name in a repository, a path
    or a message from elsewhere may hold any of them.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(each if is_visible(each) else each.encode("unicode_escape").decode() for each in text)


def is_visible(character: str) -> bool:
    """Whether a character shows as itself: no control, format or private character, and none without a glyph."""
    return character.isprintable() and not any(first <= ord(character) <= last for first, last in _INVISIBLE_RANGES)


def measure_width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(_measure_character(each) for each in text)


def pad(text: str, width: int, *, is_right: bool = False) -> str:
    """Return text filled up with spaces to `width` columns, on the left if it is to be flush right."""
    space = " " * (width - measure_width(text))
    return space + text if is_right else text + space


def find_line_width() -> int | None:
    """Return the columns of the terminal that the standard output is, or that COLUMNS says; None if it is neither."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isascii() and columns.isdigit() and int(columns[:6]) > 0:
        return int(columns[:6])
    try:
        return os.get_terminal_size(1).columns or None
    except OSError:
        return None


def _measure_character(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
