# SPDX-License-Identifier: Apache-2.0
"""Objects of a delta: literals in the encoding that makes least of them, and what is refused of them."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from deltaimg.codec.deltaimg_codec import DeltaimgCodec
from deltaimg.codec.none import NoneCodec
from deltaimg.codec.zstd import ZstdCodec
from deltaimg.engine.files.deltaimg_parts import DeltaReader
from deltaimg.engine.files.run import make_delta, patch, sign
from deltaimg.engine.files.streams import Input
from deltaimg.errors import Malformed, UnsupportedFormat
from deltaimg.format.delta import LITERAL, OP, DeltaObject, build_delta, parse_delta
from deltaimg.format.framing import Kind
from deltaimg.model import MIB

NOISE, ROW = random.Random(3).randbytes(3 * MIB), random.Random(4).randbytes(60)
TEXT = b"hello world, hello moon"


def make_rows(size: int) -> bytes:
    """Rows of a table, in which a number counts up."""
    rows = np.frombuffer(ROW * (size // len(ROW) + 1), np.uint8).reshape(-1, len(ROW)).copy()
    rows[:, :4] = np.arange(len(rows), dtype="<u4").view(np.uint8).reshape(-1, 4)
    return rows.tobytes()[:size]


def read_objects(path: Path) -> list[DeltaObject]:
    found = []
    with Input(str(path)) as file:
        while not found or found[-1].root is None:
            found.append(parse_delta(file.read_object(Kind.DELTA), file.name))
    return found


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (make_rows(3 * MIB), DeltaimgCodec.encoding_id),
        (TEXT * 100_000, ZstdCodec.encoding_id),
        (NOISE, NoneCodec.encoding_id),
        (bytes(9 * MIB), NoneCodec.encoding_id),
    ],
    ids=["rows", "text", "noise", "zeroes"],
)
def test_literals_are_in_the_encoding_that_makes_least_of_them(tmp_path: Path, content: bytes, encoding: int) -> None:
    old, new, sums, made = (str(tmp_path / name) for name in ("old", "new", "sums", "delta"))
    Path(old).write_bytes(b"something else")
    Path(new).write_bytes(content)
    sign(old, sums)
    make_delta(sums, new, made)
    objects = read_objects(Path(made))
    assert {part.encoding for part in objects if part.literal_bytes} <= {encoding}
    assert max(part.literal_bytes for part in objects) <= 2 * MIB, "a part takes a multiple of itself in memory"
    patch(old, made, str(tmp_path / "again"))
    assert (tmp_path / "again").read_bytes() == content


@pytest.mark.parametrize(
    ("encoding", "literals", "error", "said"),
    [
        (9, TEXT, UnsupportedFormat, "literals in encoding 9, which this deltaimg does not read"),
        (2, TEXT, UnsupportedFormat, "literals in encoding 2"),
        (NoneCodec.encoding_id, TEXT[:-1], Malformed, "literals cannot be decoded: 22 bytes, not 23"),
        (ZstdCodec.encoding_id, TEXT, Malformed, "literals cannot be decoded"),
        (ZstdCodec.encoding_id, ZstdCodec().encode(TEXT * 2), Malformed, "literals cannot be decoded"),
        (DeltaimgCodec.encoding_id, ZstdCodec().encode(TEXT), Malformed, "literals cannot be decoded"),
        (DeltaimgCodec.encoding_id, DeltaimgCodec().encode(TEXT) + b"x", Malformed, "literals cannot be decoded"),
    ],
)
def test_literals_that_cannot_be_decoded_are_refused(
    tmp_path: Path, encoding: int, literals: bytes, error: type[Exception], said: str
) -> None:
    ops, path = np.array([(LITERAL, len(TEXT), 0)], OP), tmp_path / "delta"
    path.write_bytes(build_delta(DeltaObject(bytes(32), 4096, 0, 0, ops, encoding, literals, bytes(16))))
    with Input(str(path)) as file, pytest.raises(error, match=said):
        list(DeltaReader(file).read_ops())


def test_an_encoding_of_nothing_is_refused() -> None:
    part = DeltaObject(bytes(32), 4096, 0, 0, np.zeros(0, OP), ZstdCodec.encoding_id, b"", bytes(16))
    with pytest.raises(Malformed, match="no literals"):
        parse_delta(build_delta(part), "x")
