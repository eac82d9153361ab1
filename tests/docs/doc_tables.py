# SPDX-License-Identifier: Apache-2.0
"""docs/format.md as data: its sections, their tables, and the layouts that the byte tables spell."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "format.md"
LAYOUT_COLUMNS = ["offset", "size", "type", "field", "meaning", "a reader must refuse"]
FIELD_COLUMNS = ["field", "type", "required", "meaning", "a reader must refuse"]
TYPE_BYTES = {"u8": 1, "u16": 2, "u32": 4, "u64": 8}
STRUCT_CODES = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q"}


@dataclass(frozen=True, slots=True)
class Field:
    """A row of a byte table."""

    offset: int
    size: int
    type: str
    name: str

    def read(self, data: bytes, base: int = 0) -> int | bytes:
        """Return this field of `data`, as the document says to read it."""
        found = data[base + self.offset : base + self.offset + self.size]
        return found if self.type == "bytes" else int.from_bytes(found, "little")


def read_document() -> str:
    return DOCUMENT.read_text()


def section(title: str) -> str:
    """Return what stands under a heading, up to the next heading of any level."""
    match = re.search(rf"^#+ {re.escape(title)}$(.*?)(?=^#+ |\Z)", read_document(), re.MULTILINE | re.DOTALL)
    assert match, f"docs/format.md has no section '{title}'"
    return match[1]


def tables(title: str) -> list[list[dict[str, str]]]:
    """Return the tables of a section, each a list of rows by column."""
    found = []
    for block in re.findall(r"(?:^\|.*\|$\n?)+", section(title), re.MULTILINE):
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.strip().splitlines()]
        columns, _, *rest = rows
        assert all(len(row) == len(columns) for row in rows), f"'{title}' has a row with another number of cells"
        found.append([dict(zip(columns, row, strict=True)) for row in rest])
    return found


def table(title: str, columns: list[str]) -> list[dict[str, str]]:
    """Return the first table of a section that has exactly these columns."""
    return next(rows for rows in tables(title) if list(rows[0]) == columns)


def layout(title: str) -> list[Field]:
    """Return the byte table of a section."""
    rows = table(title, LAYOUT_COLUMNS)
    return [Field(int(row["offset"]), int(row["size"]), row["type"], row["field"]) for row in rows]


def struct_format(fields: list[Field]) -> str:
    """Return the `struct` string of a layout."""
    return "<" + "".join(STRUCT_CODES.get(field.type, f"{field.size}s") for field in fields)


def layout_titles() -> Iterator[str]:
    """Yield the headings of all sections that have a byte table."""
    for title in re.findall(r"^#+ (.*)$", read_document(), re.MULTILINE):
        if any(list(rows[0]) == LAYOUT_COLUMNS for rows in tables(title)):
            yield title


def number(text: str) -> int:
    """Return the number that a cell begins with: `4096`, `2^20 bytes`, `2^32 - 1 bytes of body`."""
    match = re.match(r"(\d+)(?:\^(\d+))?(?: - (\d+))?", text)
    assert match, text
    return int(match[1]) ** int(match[2] or 1) - int(match[3] or 0)
