# SPDX-License-Identifier: Apache-2.0
"""Deltas of files: how a new file is made of an old one and of what is new.

A delta is one object or more, in a row, each of which makes the next stretch of the new file from its first byte on. The last
one has the new file's root digest, so that nothing else is ever taken for it.

    body     := head packed literals
    head     := 32 bytes key, u32 block_bytes, u16 flags, u16 encoding, u64 old_bytes, u64 new_start, u64 new_bytes,
                u32 op_count, u32 copy_count, u32 packed_bytes, u32 literal_bytes, 16 bytes root
    packed   := zstd of byte planes: u8 kind and u64 length of each operation; u64 shift of each copy
    literals := literal_bytes in that encoding, as a literal record's; nothing where there are none

A shift is where a copy lies in the old file less where it goes in the new one, modulo 2^64: zero wherever nothing moved.
"""

from __future__ import annotations

import struct
from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.errors import Malformed
from deltaimg.format.columns import pack_columns, unpack_columns
from deltaimg.format.framing import HEADER_BYTES, BodyReader, Kind, frame, unframe
from deltaimg.format.sums import LAST, check_block_bytes
from deltaimg.model import MAX_IMAGE_BYTES

HEAD: Final = struct.Struct("<32sIHHQQQIIII16s")
ZERO, COPY, LITERAL = 0, 1, 2
OP: Final = np.dtype([("kind", "u1"), ("length", "<u8"), ("old_offset", "<u8")])
"""One operation; `old_offset` is of copies, and zero in others."""
MAX_OPS: Final = 1 << 20
MAX_LITERAL_BYTES: Final = 1 << 24


class DeltaObject(Struct, frozen=True):
    """The operations that make bytes [new_start, new_start + the sum of their lengths) of the new file."""

    key: bytes
    block_bytes: int
    old_bytes: int
    new_start: int
    ops: npt.NDArray[np.void]
    encoding: int
    """Of the literals, a number as records have; 0 where there are none."""
    literals: bytes
    """Encoded."""
    root: bytes | None
    """In the last object of a file: the root digest of the new file. None in all others."""

    @property
    def literal_bytes(self) -> int:
        """How many bytes the literals are decoded to."""
        return int(self.ops["length"][self.ops["kind"] == LITERAL].sum(dtype=np.uint64))


def build_delta(content: DeltaObject) -> bytes:
    """Return an object of a delta."""
    ops = content.ops
    lengths = ops["length"]
    starts = np.uint64(content.new_start) + np.cumsum(lengths, dtype=np.uint64) - lengths
    is_copy = ops["kind"] == COPY
    shifts = ops["old_offset"][is_copy] - starts[is_copy]
    packed = pack_columns([ops["kind"], lengths, shifts])
    head = HEAD.pack(
        content.key, content.block_bytes, 0 if content.root is None else LAST, content.encoding, content.old_bytes,
        content.new_start, int(lengths.sum(dtype=np.uint64)), len(ops), int(is_copy.sum()), len(packed),
        content.literal_bytes, content.root or bytes(16),
    )  # fmt: skip
    return frame(Kind.DELTA, head + packed + content.literals)


def parse_delta(data: bytes, name: str) -> DeltaObject:
    """Read one object of a delta; raises IntegrityError or UnsupportedFormat.

    Its operations are of known kinds and none is empty, copies lie inside the old file. Literals are still encoded.
    """
    reader = BodyReader(name, unframe(Kind.DELTA, name, data))
    (
        key, block_bytes, flags, encoding, old_bytes, new_start, new_bytes, op_count, copy_count, packed_bytes,
        literal_bytes, root,
    ) = reader.take_struct(HEAD)  # fmt: skip
    check_block_bytes(reader, block_bytes)
    if flags not in (0, LAST) or (any(root) and not flags):
        reader.refuse("its flags are unknown, or contradict it")
    if max(old_bytes, new_start, new_bytes, new_start + new_bytes) > MAX_IMAGE_BYTES:
        reader.refuse("its sizes are absurd")
    if op_count > MAX_OPS or copy_count > op_count or literal_bytes > MAX_LITERAL_BYTES:
        reader.refuse("its counts are absurd")
    offset = HEADER_BYTES + reader.position
    packed = reader.take(packed_bytes)
    kinds, lengths, shifts = unpack_columns(
        name, offset, packed, [("u1", op_count), ("<u8", op_count), ("<u8", copy_count)]
    )
    ops = np.zeros(op_count, OP)
    ops["kind"], ops["length"] = kinds, lengths
    if op_count and (int(kinds.max()) > LITERAL or int(lengths.min()) == 0 or int(lengths.max()) > new_bytes):
        raise Malformed(name, offset, "an operation is empty, too long, or of an unknown kind")
    # No length passes 2^60, and their sum wraps in no more than 16 steps: it is compared with the true sum as a float, too.
    total = int(lengths.sum(dtype=np.uint64)) if float(lengths.sum(dtype=np.float64)) < 2.0**63 else -1
    if total != new_bytes or int(lengths[kinds == LITERAL].sum(dtype=np.uint64)) != literal_bytes:
        raise Malformed(name, offset, "its operations are not as long as it says")
    is_copy = kinds == COPY
    if int(is_copy.sum()) != copy_count:
        raise Malformed(name, offset, f"{int(is_copy.sum())} copies, but {copy_count} places to copy from")
    starts = np.uint64(new_start) + np.cumsum(lengths, dtype=np.uint64) - lengths
    old_offsets = shifts + starts[is_copy]
    if copy_count and (int(old_offsets.max()) > old_bytes or int((old_offsets + lengths[is_copy]).max()) > old_bytes):
        raise Malformed(name, offset, "a copy extends beyond the end of the old file")
    ops["old_offset"][is_copy] = old_offsets
    literal_offset, literals = HEADER_BYTES + reader.position, bytes(reader.take_rest())
    if not literal_bytes and (literals or encoding):
        raise Malformed(
            name, literal_offset, "it has no literals, yet says how they are encoded, or bytes follow its end"
        )
    return DeltaObject(key, block_bytes, old_bytes, new_start, ops, encoding, literals, root if flags else None)
