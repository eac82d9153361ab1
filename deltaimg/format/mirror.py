# SPDX-License-Identifier: Apache-2.0
"""What is kept of a mirror: the digests of the blocks that a copy holds, and the journal that undoes a run.

A state is one object or more, in a row; each has the digests of the blocks that it covers; all cover the copy, without gaps.

    state body   := head bitmap digests
    head         := 32 bytes key, 16 bytes root, 16 bytes journal, u64 image_bytes, u64 modified_ns, u64 first_block,
                    u32 block_count, u32 data_count
    bitmap       := a bit for each of block_count blocks, lowest first: whether it has a digest; others are zero
    digests      := data_count times 16 bytes

A journal is one object that begins it, and one for each group of blocks before any of them is overwritten.

    begin body   := 16 bytes id, u64 image_bytes
    undo body    := u32 data_count, u32 zero_count, u64 index of each of these blocks, content of the first data_count ones
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.arrays import DIGEST_BYTES, Digests, mark_data, sparse_zeros
from deltaimg.errors import Malformed, Truncated
from deltaimg.format.framing import (
    HEADER_BYTES,
    BodyReader,
    Kind,
    build_header,
    digest_bytes,
    frame,
    parse_header,
    unframe,
)
from deltaimg.model import MAX_IMAGE_BYTES, count_blocks

BLOCK_BYTES: Final = 4096
STATE_HEAD: Final = struct.Struct("<32s16s16sQQQII")
BEGIN: Final = struct.Struct("<16sQ")
UNDO_HEAD: Final = struct.Struct("<II")
MAX_PART_BLOCKS: Final = 1 << 20
MAX_UNDO_BLOCKS: Final = 1 << 11
_MAX_STATE_BYTES = HEADER_BYTES + STATE_HEAD.size + MAX_PART_BLOCKS * (DIGEST_BYTES + 1)
MAX_UNDO_BYTES: Final = HEADER_BYTES + UNDO_HEAD.size + MAX_UNDO_BLOCKS * (8 + BLOCK_BYTES)


class MirrorState(Struct, frozen=True):
    """What a copy holds. `digests` are of all blocks, those of zero blocks zero; the last block counts as padded with zeros."""

    key: bytes
    root: bytes
    image_bytes: int
    digests: Digests
    modified_ns: int = 0
    """When the copy was written last; 0 for a device."""
    journal: bytes = bytes(16)
    """The id of the journal that the run had which this state ended."""


class Undo(Struct, frozen=True):
    """Blocks, and what was in them before they were overwritten: `content` of the first ones, zeros in the rest."""

    blocks: npt.NDArray[np.int64]
    content: memoryview


def build_state(state: MirrorState) -> Iterator[bytes]:
    """Yield the objects of a state."""
    for first in range(0, max(1, len(state.digests)), MAX_PART_BLOCKS):
        digests = state.digests[first : first + MAX_PART_BLOCKS]
        is_data = mark_data(digests)
        head = STATE_HEAD.pack(
            state.key,
            state.root,
            state.journal,
            state.image_bytes,
            state.modified_ns,
            first,
            len(digests),
            int(is_data.sum()),
        )
        yield frame(Kind.MIRROR, head + np.packbits(is_data, bitorder="little").tobytes() + digests[is_data].tobytes())


def parse_state(name: str, file: BinaryIO) -> MirrorState:
    """Read a state; raises IntegrityError, UnsupportedFormat or OSError."""
    shared: tuple[bytes, bytes, bytes, int, int] | None = None
    digests: Digests = np.zeros((0, DIGEST_BYTES), np.uint8)
    end = 0
    while shared is None or end < len(digests):
        reader = BodyReader(name, unframe(Kind.MIRROR, name, _read_object(Kind.MIRROR, name, file, _MAX_STATE_BYTES)))
        key, root, journal, image_bytes, modified_ns, first, block_count, data_count = reader.take_struct(STATE_HEAD)
        if shared is None:
            if image_bytes > MAX_IMAGE_BYTES:
                reader.refuse("its size is absurd")
            shared = (key, root, journal, image_bytes, modified_ns)
            total = count_blocks(image_bytes, BLOCK_BYTES)
            digests = sparse_zeros(total * DIGEST_BYTES, np.uint8).reshape(-1, DIGEST_BYTES)
        if shared != (key, root, journal, image_bytes, modified_ns) or first != end:
            reader.refuse("its parts do not belong together")
        if block_count != min(MAX_PART_BLOCKS, len(digests) - first) or data_count > block_count:
            reader.refuse("its counts are absurd")
        bits = np.unpackbits(np.frombuffer(reader.take(-(-block_count // 8)), np.uint8), bitorder="little")
        places = np.flatnonzero(bits)
        if len(places) != data_count or (data_count and int(places[-1]) >= block_count):
            reader.refuse("it has digests of other blocks than it says")
        found = np.frombuffer(reader.take(data_count * DIGEST_BYTES), np.uint8).reshape(-1, DIGEST_BYTES)
        digests[first + places] = found
        reader.expect_end()
        end = first + block_count
    if file.read(1):
        raise Malformed(name, 0, "bytes follow its end")
    key, root, journal, image_bytes, modified_ns = shared
    return MirrorState(key, root, image_bytes, digests, modified_ns, journal)


def build_begin(journal: bytes, image_bytes: int) -> bytes:
    """Return what a journal begins with: its id, and how many bytes the copy had."""
    return frame(Kind.MIRROR_JOURNAL, BEGIN.pack(journal, image_bytes))


def parse_begin(name: str, file: BinaryIO) -> tuple[bytes, int]:
    """Return id and size of the copy; raises IntegrityError, UnsupportedFormat or OSError."""
    data = _read_object(Kind.MIRROR_JOURNAL, name, file, HEADER_BYTES + BEGIN.size)
    reader = BodyReader(name, unframe(Kind.MIRROR_JOURNAL, name, data))
    journal, image_bytes = reader.take_struct(BEGIN)
    reader.expect_end()
    if image_bytes > MAX_IMAGE_BYTES:
        reader.refuse("its size is absurd")
    return journal, image_bytes


def build_undo(undo: Undo) -> bytes:
    """Return the object for a group of at most MAX_UNDO_BLOCKS blocks."""
    data_count = len(undo.content) // BLOCK_BYTES
    head = UNDO_HEAD.pack(data_count, len(undo.blocks) - data_count) + undo.blocks.astype("<u8").tobytes()
    header = build_header(Kind.MIRROR_UNDO, len(head) + len(undo.content), digest_bytes(head, undo.content))
    return b"".join((header, head, undo.content))


def parse_undo(name: str, file: BinaryIO) -> Undo:
    """Read the next group; raises IntegrityError, UnsupportedFormat or OSError."""
    reader = BodyReader(
        name, unframe(Kind.MIRROR_UNDO, name, _read_object(Kind.MIRROR_UNDO, name, file, MAX_UNDO_BYTES))
    )
    data_count, zero_count = reader.take_struct(UNDO_HEAD)
    if data_count + zero_count > MAX_UNDO_BLOCKS:
        reader.refuse("its counts are absurd")
    blocks = np.frombuffer(reader.take(8 * (data_count + zero_count)), "<u8")
    if len(blocks) and int(blocks.max()) >= MAX_IMAGE_BYTES // BLOCK_BYTES:
        reader.refuse("a block of it is beyond any image")
    content = reader.take(data_count * BLOCK_BYTES)
    reader.expect_end()
    return Undo(blocks.astype(np.int64), content)


def _read_object(kind: Kind, name: str, file: BinaryIO, max_bytes: int) -> bytes:
    """Return the next object of a file, its frame still on it."""
    head = file.read(HEADER_BYTES)
    body_bytes = parse_header(kind, name, head).body_bytes
    if HEADER_BYTES + body_bytes > max_bytes:
        raise Malformed(name, 16, f"claims a body of {body_bytes} bytes")
    body = file.read(body_bytes)
    if len(body) < body_bytes:
        raise Truncated(name, HEADER_BYTES, HEADER_BYTES + body_bytes, HEADER_BYTES + len(body))
    return head + body
