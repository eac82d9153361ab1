# SPDX-License-Identifier: Apache-2.0
"""Tables as lines of text. Nothing is ever cut off.

What is too wide for a terminal is wrapped: the last column in its place, or else below its row, and the widest of the others
where they need it. Where that is not enough, each field gets a line.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from deltaimg.describe.text import format_line, measure_width, pad

_GAP = "  "
_MIN_WRAPPED_WIDTH = 12
_INDENT = "    "
"""In front of a last column that is set below its row."""


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
    elif _can_wrap(len(columns) - 1, excess, columns, widths, safe):
        widths[-1] -= excess
        for row in safe:
            yield from _wrap_cell(len(columns) - 1, row, columns, widths)
    elif (fitted := _fit_without_last(columns, widths, safe, line_width)) is not None:
        for row in safe:
            yield from _set_last_below(row, columns, *fitted, line_width)
    else:
        for number, row in enumerate(safe[1:]):
            yield from ([""] if number else [])
            yield from _stack(names, row, line_width)


def lay_out_pairs(pairs: Sequence[tuple[str, str]], line_width: int | None) -> Iterator[str]:
    """Yield lines of names and values, values aligned; long ones are wrapped where there is a terminal."""
    safe = [(format_line(name), format_line(value)) for name, value in pairs]
    width = max(measure_width(name) for name, _ in safe)
    for name, value in safe:
        parts = [value] if line_width is None else _wrap(value, line_width - width - len(_GAP))
        for number, part in enumerate(parts):
            yield f"{pad('' if number else name, width)}{_GAP}{part}".rstrip()


def _can_wrap(
    place: int, excess: int, columns: Sequence[str], widths: Sequence[int], rows: Sequence[Sequence[str]]
) -> bool:
    """Return whether a column can be made narrower by `excess`, with all of its words whole."""
    longest_word = max((measure_width(word) for row in rows for word in row[place].split()), default=0)
    return not columns[place].startswith(">") and widths[place] - excess >= max(_MIN_WRAPPED_WIDTH, longest_word)


def _fit_without_last(
    columns: Sequence[str], widths: Sequence[int], rows: Sequence[Sequence[str]], line_width: int
) -> tuple[int, list[int]] | None:
    """Return which column is wrapped and how wide all are, where they fit once the last one is below; else None."""
    if len(columns) < 3 or columns[-1].startswith(">"):
        return None
    fitted = list(widths[:-1])
    excess = sum(fitted) + len(_GAP) * (len(fitted) - 1) - line_width
    widest = max(range(len(fitted)), key=lambda place: (not columns[place].startswith(">"), fitted[place]))
    if excess > 0:
        if not _can_wrap(widest, excess, columns, widths, rows):
            return None
        fitted[widest] -= excess
    return widest, fitted


def _join(row: Sequence[str], columns: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        pad(cell, width, is_right=column.startswith(">"))
        for cell, width, column in zip(row, widths, columns, strict=True)
    ]
    return _GAP.join(cells).rstrip()


def _wrap_cell(place: int, row: Sequence[str], columns: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    """Yield a row one of whose cells is continued on the next lines."""
    for number, part in enumerate(_wrap(row[place], widths[place])):
        others = [""] * len(row) if number else row
        yield _join([*others[:place], part, *others[place + 1 :]], columns, widths)


def _set_last_below(
    row: Sequence[str], columns: Sequence[str], wrapped: int, widths: Sequence[int], line_width: int
) -> Iterator[str]:
    """Yield a row whose last cell, if there is anything in it, gets lines of its own."""
    *others, last = row
    yield from _wrap_cell(wrapped, others, columns[:-1], widths)
    if last:
        yield from (_INDENT + part for part in _wrap(last, line_width - len(_INDENT)))


def _stack(names: Sequence[str], row: Sequence[str], line_width: int) -> Iterator[str]:
    """Yield a row as lines of name and value; a field without a value is left out."""
    width = max(measure_width(name) for name in names)
    for name, cell in zip(names, row, strict=True):
        for number, part in enumerate(_wrap(cell, line_width - width - len(_GAP)) if cell else ()):
            yield f"{pad('' if number else name, width)}{_GAP}{part}"


def _wrap(text: str, width: int) -> list[str]:
    """Return a text in lines of at most `width` columns, words whole."""
    return textwrap.wrap(text, max(width, _MIN_WRAPPED_WIDTH), break_long_words=False, break_on_hyphens=False) or [""]
