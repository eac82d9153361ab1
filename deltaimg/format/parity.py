# SPDX-License-Identifier: Apache-2.0
"""`parity/<digest>`: Reed-Solomon shards from which lost parts of packs, or whole packs, are computed again.

    parity := header tables planes twin trailer
    tables := head packs digests
    packs  := pack_count times `PACK_ENTRY`
    digests := 16 bytes for each shard of the packs, then for each shard of the planes
    planes := parity_columns times stripe_count shards
    twin   := header tables, once more
    trailer := u32 bytes of the twin, u32 zero, 8 bytes magic

The packs, one after another, each filled up with zeroes to whole shards, are numbered in shards: number n is in column
n // stripe_count of stripe n % stripe_count. So neighbours are in different stripes, and what is damaged in one place takes
few shards of any one stripe.

The header's body digest covers the tables only. Shards have a digest each, and the tables are stored twice: a parity object
is damaged where packs are, and must be of use then.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.arrays import DIGEST_BYTES, Digests
from deltaimg.errors import DigestMismatch, Malformed, Truncated
from deltaimg.format.framing import HEADER_BYTES, BodyReader, Kind, build_header, digest_bytes, parse_header
from deltaimg.format.limits import MAX_PACK_BYTES, MAX_PARITY_COLUMNS, MAX_SHARD_BYTES, MIN_SHARD_BYTES

PARITY: Final = "parity/"
HEAD: Final = struct.Struct("<IIIHHQ")
PACK_ENTRY: Final = np.dtype([("digest", "u1", (32,)), ("pack_bytes", "<u8")])
TRAILER: Final = struct.Struct("<II8s")
TRAILER_MAGIC: Final = b"\x8bDIMGTWN"
FRONT_BYTES: Final = HEADER_BYTES + HEAD.size
"""From which the length of the tables follows."""


class ParityLayout(Struct, frozen=True):
    """What a parity object protects and how its shards are arranged."""

    packs: tuple[str, ...]
    pack_bytes: npt.NDArray[np.uint64]
    """The size of each pack."""
    shard_bytes: int
    stripe_count: int
    data_columns: int
    parity_columns: int

    @property
    def pack_shards(self) -> npt.NDArray[np.int64]:
        """Shards of each pack."""
        return count_shards(self.pack_bytes, self.shard_bytes)

    @property
    def data_shards(self) -> int:
        """Shards of all packs."""
        return int(self.pack_shards.sum())

    @property
    def parity_shards(self) -> int:
        """Parity shards of all stripes."""
        return self.parity_columns * self.stripe_count

    @property
    def parity_bytes(self) -> int:
        """Bytes of the planes."""
        return self.parity_shards * self.shard_bytes

    @property
    def planes_offset(self) -> int:
        """Where in the object the planes begin."""
        digests = self.data_shards + self.parity_shards
        return FRONT_BYTES + PACK_ENTRY.itemsize * len(self.packs) + DIGEST_BYTES * digests


class ParityTables(ParityLayout, frozen=True):
    """The same, and the digest of every shard; a parity object without the planes."""

    digests: Digests
    """Of all shards of the packs, in order of number, then of those of the planes, plane after plane."""

    @property
    def layout(self) -> ParityLayout:
        """What is left without the digests, which are by far the most of it."""
        return ParityLayout(
            self.packs, self.pack_bytes, self.shard_bytes, self.stripe_count, self.data_columns, self.parity_columns
        )


def count_shards(pack_bytes: npt.NDArray[np.uint64], shard_bytes: int) -> npt.NDArray[np.int64]:
    """Return of how many shards packs of these sizes consist."""
    shards: npt.NDArray[np.int64] = -(-pack_bytes.astype(np.int64) // shard_bytes)
    return shards


def digest_shards(data: bytes | bytearray | memoryview, shard_bytes: int) -> Digests:
    """Return the digest of each shard of `data`, whose last is filled up with zeroes."""
    view = memoryview(data)
    whole = len(view) // shard_bytes * shard_bytes
    digests = [digest_bytes(view[at : at + shard_bytes]) for at in range(0, whole, shard_bytes)]
    if whole < len(view):
        digests.append(digest_bytes(view[whole:], bytes(whole + shard_bytes - len(view))))
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST_BYTES)


def lay_out_parity(tables: ParityTables, planes: Iterable[bytes | memoryview]) -> list[bytes | memoryview]:
    """Return a parity object as the parts of its bytes; the planes are not copied."""
    packs = np.empty(len(tables.packs), PACK_ENTRY)
    packs["digest"] = np.frombuffer(bytes.fromhex("".join(tables.packs)), np.uint8).reshape(-1, 32)
    packs["pack_bytes"] = tables.pack_bytes
    head = HEAD.pack(
        len(tables.packs),
        tables.shard_bytes,
        tables.stripe_count,
        tables.data_columns,
        tables.parity_columns,
        0,
    )
    packed = head + packs.tobytes() + tables.digests.tobytes()
    twin_bytes = HEADER_BYTES + len(packed)
    body_bytes = len(packed) + tables.parity_bytes + twin_bytes + TRAILER.size
    front = build_header(Kind.PARITY, body_bytes, digest_bytes(packed)) + packed
    return [front, *planes, front, TRAILER.pack(twin_bytes, 0, TRAILER_MAGIC)]


def measure_tables(name: str, front: bytes | memoryview, size_bytes: int) -> int:
    """Return how many bytes header and tables of object `name` have together.

    Args:
        front: at least the first `FRONT_BYTES` of them.
        size_bytes: of the whole object; a claim of tables longer than that is refused.

    Raises:
        Truncated, Malformed, UnsupportedFormat: as `parse_header`, and for counts that cannot be.
    """
    header = parse_header(Kind.PARITY, name, front)
    pack_count, shard_bytes, stripes, columns, parity_columns, reserved = BodyReader(
        name, memoryview(front)[HEADER_BYTES:]
    ).take_struct(HEAD)
    is_size = MIN_SHARD_BYTES <= shard_bytes <= MAX_SHARD_BYTES and shard_bytes & (shard_bytes - 1) == 0
    if reserved or not is_size:
        raise Malformed(name, HEADER_BYTES, "reserved bytes in use, or an absurd size of shards")
    if not (columns and parity_columns and stripes and pack_count) or columns + parity_columns > MAX_PARITY_COLUMNS:
        raise Malformed(name, HEADER_BYTES, "its counts are absurd")
    planes_bytes = parity_columns * stripes * shard_bytes
    # header, tables, planes, header, tables, trailer
    twin_bytes, is_odd = divmod(HEADER_BYTES + header.body_bytes - planes_bytes - TRAILER.size, 2)
    least = FRONT_BYTES + pack_count * (PACK_ENTRY.itemsize + DIGEST_BYTES) + parity_columns * stripes * DIGEST_BYTES
    if is_odd or twin_bytes < least:
        raise Malformed(name, HEADER_BYTES, "its tables have another length than its counts give")
    if twin_bytes > size_bytes:
        raise Truncated(name, size_bytes, twin_bytes, size_bytes)
    return int(twin_bytes)


def parse_tables(name: str, data: bytes | memoryview, size_bytes: int) -> ParityTables:
    """Read header and tables, or their twin, from the beginning of `data`; the planes need not be there.

    Raises:
        Truncated, Malformed, UnsupportedFormat, DigestMismatch: also where the planes would be fine.
    """
    twin_bytes = measure_tables(name, data, size_bytes)
    if len(data) < twin_bytes:
        raise Truncated(name, len(data), twin_bytes, len(data))
    header = parse_header(Kind.PARITY, name, data)
    body = memoryview(data)[HEADER_BYTES:twin_bytes]
    found = digest_bytes(body)
    if found != header.body_digest:
        raise DigestMismatch(name, HEADER_BYTES, "its table", header.body_digest, found)
    reader = BodyReader(name, body)
    pack_count, shard_bytes, stripes, columns, parity_columns, _ = reader.take_struct(HEAD)
    packs = np.frombuffer(reader.take(PACK_ENTRY.itemsize * pack_count), PACK_ENTRY)
    sizes = packs["pack_bytes"]
    if not HEADER_BYTES < int(sizes.min()) <= int(sizes.max()) <= MAX_PACK_BYTES:
        reader.refuse("a pack of an absurd size")
    names = tuple(each.tobytes().hex() for each in packs["digest"])
    if len(set(names)) != pack_count:
        reader.refuse("it names a pack twice")
    shards = int(count_shards(sizes, shard_bytes).sum())
    if not (columns - 1) * stripes < shards <= columns * stripes:
        reader.refuse(f"its packs have {shards} shards, for {columns} columns of {stripes}")
    digests = reader.take(DIGEST_BYTES * (shards + parity_columns * stripes))
    reader.expect_end()
    return ParityTables(
        names,
        sizes.astype(np.uint64),
        shard_bytes,
        stripes,
        columns,
        parity_columns,
        np.frombuffer(digests, np.uint8).reshape(-1, DIGEST_BYTES),
    )


def parse_trailer(name: str, data: bytes | memoryview, size_bytes: int) -> int:
    """Return the offset of the twin in an object of `size_bytes`, whose last bytes `data` are."""
    offset = size_bytes - TRAILER.size
    if len(data) < TRAILER.size:
        raise Truncated(name, size_bytes, HEADER_BYTES + TRAILER.size, size_bytes)
    twin_bytes, reserved, magic = TRAILER.unpack(data[len(data) - TRAILER.size :])
    if magic != TRAILER_MAGIC or reserved or not FRONT_BYTES <= twin_bytes <= offset:
        raise Malformed(name, offset, "its trailer is damaged")
    return offset - int(twin_bytes)
