# SPDX-License-Identifier: Apache-2.0
"""The annotated dumps at the end of docs/format.md, made of golden objects and of the document's own tables.

`python -m tests.docs.dump` prints them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.docs.doc_tables import Field, layout

GOLDEN = Path(__file__).parents[1] / "golden" / "v1"
_ROW_BYTES = 16


def dump(data: bytes, fields: list[Field]) -> str:
    """Return the bytes of `data` that `fields` cover, a line a field: offset, bytes, name."""
    return "\n".join(line for field in fields for line in _lines(data, field))


def _lines(data: bytes, field: Field) -> Iterator[str]:
    end = field.offset + field.size
    for start in range(field.offset, end, _ROW_BYTES):
        row = data[start : min(start + _ROW_BYTES, end)].hex(" ")
        value = "" if field.type == "bytes" else f" = {field.read(data)}"
        yield f"{start:04x}  {row:<47}  {field.name + value if start == field.offset else ''}".rstrip()


def shift(fields: list[Field], by: int, prefix: str = "") -> list[Field]:
    return [Field(field.offset + by, field.size, field.type, prefix + field.name) for field in fields]


def signature_dump() -> str:
    """Return the dump of a signature object, whole."""
    data = (GOLDEN / "signature" / "two-records.bin").read_bytes()
    fields = layout("Common header") + layout("Signature head")
    for name, size, type_, count in (
        ("id of record", 16, "bytes", 2),
        ("slots of record", 2, "u16", 2),
        ("digest of slot", 16, "bytes", 3),
    ):
        for place in range(count):
            fields.append(Field(fields[-1].offset + fields[-1].size, size, type_, f"{name} {place}"))
    assert fields[-1].offset + fields[-1].size == len(data)
    return dump(data, fields)


def pack_dump() -> str:
    """Return the dump of a pack's header and its first record's."""
    data = (GOLDEN / "pack" / "two-records.bin").read_bytes()
    return dump(data, layout("Common header") + shift(layout("Record header"), 64))


if __name__ == "__main__":
    print(signature_dump(), pack_dump(), sep="\n\n")
