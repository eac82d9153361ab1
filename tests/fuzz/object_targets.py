# SPDX-License-Identifier: Apache-2.0
"""How fuzzed bytes become objects of a repository.

The first byte of an input chooses how it is dressed: as a body under a header whose checksums are right (where parsers
refuse them by itself), as a map or an index whose columns are packed again, or as bytes that come from nowhere.
"""

from __future__ import annotations

import numpy as np
import zstandard

from deltaimg.format import index, parity
from deltaimg.format import map as map_format
from deltaimg.format.framing import HEADER_BYTES, Kind
from tests.fuzz.harness import NAMES, exercise
from tests.golden import forge
from tests.golden.kinds import KINDS


def exercise_object(kind: str, data: bytes) -> object:
    """Parse an object made of fuzzed bytes, and write and read it again; return what it says, None if it was refused."""
    return exercise(kind, dress(kind, data), NAMES[kind])


def find_columns(kind: str, body: bytes) -> int | None:
    """Return where the packed columns of a body begin, and end with it; None where it has none."""
    if kind == "map" and len(body) >= map_format.HEAD.size:
        return map_format.HEAD.size + 16 * map_format.HEAD.unpack_from(body)[1]
    if kind == "index" and len(body) >= index.HEAD.size:
        packs, signatures, entries, ids = index.HEAD.unpack_from(body)[1:5]
        return index.HEAD.size + 32 * (packs + signatures) + index.ENTRY.itemsize * entries + 16 * ids
    return None


def pack_again(kind: str, body: bytes) -> bytes:
    """Return a body whose columns, plain in `body`, are packed: bytes that libFuzzer changes would never be a frame again."""
    start = find_columns(kind, body)
    if start is None or start > len(body):
        return body
    packed = forge.pad(zstandard.ZstdCompressor(level=1).compress(body[start:]), len(body) - start)
    # Its length stands at the end of a map's head, and before the last field of an index's.
    at = map_format.HEAD.size - 4 if kind == "map" else index.HEAD.size - 8
    return body[:at] + len(packed).to_bytes(4, "little") + body[at + 4 : start] + packed


def unpack_columns(kind: str, body: bytes) -> bytes:
    """Return a body with its columns plain, as `pack_again` takes it."""
    start = find_columns(kind, body)
    packed = body[start:].lstrip(b"\0") if start is not None else b""
    return body[:start] + zstandard.decompress(packed) if packed else body


def dress_parity(body: bytes) -> bytes:
    """Return a parity object of the tables and planes in `body`: both headers, digest, twin and trailer are right."""
    tables_bytes = len(body)
    if len(body) >= parity.HEAD.size:
        pack_count, shard_bytes, stripes, _, parity_columns, _ = parity.HEAD.unpack_from(body)
        packs = np.frombuffer(body, np.uint8)[parity.HEAD.size :][: parity.PACK_ENTRY.itemsize * pack_count]
        sizes = packs[: len(packs) // 40 * 40].view(parity.PACK_ENTRY)["pack_bytes"].tolist()
        shards = sum(-(-size // max(1, shard_bytes)) for size in sizes)
        tables_bytes = parity.HEAD.size + 40 * pack_count + 16 * (shards + stripes * parity_columns)
    tables, planes = body[:tables_bytes], body[tables_bytes:]
    length = 2 * len(tables) + len(planes) + HEADER_BYTES + parity.TRAILER.size
    front = forge.forge_object(Kind.PARITY, tables, body_bytes=length)
    return front + planes + front + parity.TRAILER.pack(len(front), 0, parity.TRAILER_MAGIC)


def dress(kind: str, data: bytes) -> bytes:
    """Return an object made of fuzzed bytes."""
    how, body = data[:1], data[1:]
    if how == b"\0":
        return body
    if how == b"\1":
        body = pack_again(kind, body)
    if kind == "pack":
        at = max(0, len(body) - 48)
        return forge.forge_pack(body[:at], body[at : at + 32], body[at + 32 :])
    if kind == "parity":
        return dress_parity(body)
    return forge.forge_object(KINDS[kind].kind, body)


def make_seeds(kind: str, data: bytes) -> tuple[bytes, ...]:
    """Return what fuzzing begins with of a good object: its body as it is, and with columns that can be changed."""
    body = forge.body_of(data)
    if kind == "parity":
        body = body[: parity.parse_trailer("x", data, len(data)) - HEADER_BYTES]
    return b"\2" + body, b"\1" + unpack_columns(kind, body)
