# SPDX-License-Identifier: Apache-2.0
"""Tables as lines of text. Nothing is ever cut off: what is too wide for a terminal is wrapped, or set one field a line."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from deltaimg.describe.text import format_line, measure_width, pad

_GAP = "  "
_MIN_LAST_WIDTH = 12


def lay_out_table(columns: Sequence[str], rows: Sequence[Sequence[str]], line_width: int | None) -> Iterator[str]:
    """Yield the lines of a table.

    Args:
        columns: their names; one that begins with `>` is set flush right.
        line_width: of the terminal; None for files and pipes, where each row is one line.
    """
    names = [column.lstrip(">") for column in columns]
    safe = [[format_line(cell) for cell in row] for row in [names, *rows]]
    widths = [max(measure_width(row[place]) for row in safe) for place in range(len(columns))]
    excess = 0 if line_width is None else sum(widths) + len(_GAP) * (len(widths) - 1) - line_width
    if line_width is None or excess <= 0:
        yield from (_join(row, columns, widths) for row in safe)
    elif not columns[-1].startswith(">") and widths[-1] - excess >= _MIN_LAST_WIDTH:
        widths[-1] -= excess
        for row in safe:
            yield from _wrap_last(row, columns, widths)
    else:
        for number, row in enumerate(safe[1:]):
            yield from ([""] if number else [])
            yield from _stack(names, row, line_width)


def _join(row: Sequence[str], columns: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        pad(cell, width, is_right=column.startswith(">"))
        for cell, width, column in zip(row, widths, columns, strict=True)
    ]
    return _GAP.join(cells).rstrip()


def _wrap_last(row: Sequence[str], columns: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    """Yield a row whose last cell is continued on the next lines."""
    *others, last = row
    for number, part in enumerate(_wrap(last, widths[-1])):
        yield _join([*([""] * len(others) if number else others), part], columns, widths)


def _stack(names: Sequence[str], row: Sequence[str], line_width: int) -> Iterator[str]:
    """Yield a row as lines of name and value; a field without a value is left out."""
    width = max(measure_width(name) for name in names)
    for name, cell in zip(names, row, strict=True):
        for number, part in enumerate(_wrap(cell, line_width - width - len(_GAP)) if cell else ()):
            yield f"{pad('' if number else name, width)}{_GAP}{part}"


def _wrap(text: str, width: int) -> list[str]:
    """Return a text in lines of at most `width` columns, words whole."""
    return textwrap.wrap(text, max(width, _MIN_LAST_WIDTH), break_long_words=False, break_on_hyphens=False) or [""]
