# SPDX-License-Identifier: Apache-2.0
"""Signatures of files: the sums of an old file's blocks, by which a new one is searched for them.

A file of sums is one object or more, in a row. Each says all about the blocks that it covers; blocks that none covers are
zero. So it can be written and read as it comes.

    body   := head bitmap weaks strongs
    head   := 32 bytes key, u32 block_bytes, u32 flags, u64 first_block, u32 block_count, u32 data_count, u64 image_bytes
    bitmap := a bit for each of block_count blocks, lowest first: whether it has sums; others are zero
    weaks, strongs := data_count times 5 bytes of weak sum, then data_count times 8 of strong sum
"""

from __future__ import annotations

import struct
from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.format.framing import BodyReader, Kind, frame, unframe
from deltaimg.model import MAX_IMAGE_BYTES, count_blocks

HEAD: Final = struct.Struct("<32sIIQIIQ")
LAST: Final = 1
"""The flag of a file's last object, the only one with the size of the image."""
WEAK_BYTES, STRONG_BYTES = 5, 8
"""The strong sum need not be an identity: what is made of a delta is verified as a whole. Eight keyed bytes make a false match
less likely than a broken disk, and without the key none can be made on purpose."""
MIN_BLOCK_BYTES: Final = 1 << 10
MAX_BLOCK_BYTES: Final = 1 << 20
MAX_PART_BLOCKS: Final = 1 << 20


class SumsObject(Struct, frozen=True):
    """The sums of blocks [first_block, first_block + block_count); `weaks` and `strongs` of those that are not zero."""

    key: bytes
    block_bytes: int
    first_block: int
    is_data: npt.NDArray[np.bool_]
    weaks: npt.NDArray[np.uint64]
    strongs: npt.NDArray[np.uint8]
    image_bytes: int | None
    """In the last object of a file; None in all others."""


def build_sums(content: SumsObject) -> bytes:
    """Return an object of sums."""
    head = HEAD.pack(
        content.key,
        content.block_bytes,
        0 if content.image_bytes is None else LAST,
        content.first_block,
        len(content.is_data),
        len(content.weaks),
        content.image_bytes or 0,
    )
    weaks = np.ascontiguousarray(content.weaks.astype("<u8")).view(np.uint8).reshape(-1, 8)[:, :WEAK_BYTES]
    bitmap = np.packbits(content.is_data, bitorder="little")
    return frame(Kind.SUMS, head + bitmap.tobytes() + weaks.tobytes() + content.strongs.tobytes())


def parse_sums(data: bytes, name: str) -> SumsObject:
    """Read one object of sums; raises IntegrityError or UnsupportedFormat."""
    reader = BodyReader(name, unframe(Kind.SUMS, name, data))
    key, block_bytes, flags, first_block, block_count, data_count, image_bytes = reader.take_struct(HEAD)
    check_block_bytes(reader, block_bytes)
    if flags not in (0, LAST) or (image_bytes and not flags):
        reader.refuse("its flags are unknown, or contradict it")
    if block_count > MAX_PART_BLOCKS or data_count > block_count or image_bytes > MAX_IMAGE_BYTES:
        reader.refuse("its counts are absurd")
    end_block = first_block + block_count
    if end_block > count_blocks(image_bytes if flags else MAX_IMAGE_BYTES, block_bytes):
        reader.refuse("its blocks are beyond the end of the image")
    bits = np.unpackbits(np.frombuffer(reader.take(-(-block_count // 8)), np.uint8), bitorder="little")
    is_data = bits[:block_count].astype(np.bool_)
    if bits[block_count:].any() or int(is_data.sum()) != data_count:
        reader.refuse("it has sums for other blocks than it says")
    weaks = np.zeros((data_count, 8), np.uint8)
    weaks[:, :WEAK_BYTES] = np.frombuffer(reader.take(WEAK_BYTES * data_count), np.uint8).reshape(-1, WEAK_BYTES)
    strongs = np.frombuffer(reader.take(STRONG_BYTES * data_count), np.uint8).reshape(-1, STRONG_BYTES)
    reader.expect_end()
    return SumsObject(
        key, block_bytes, first_block, is_data, weaks.view("<u8").reshape(-1).astype(np.uint64), strongs,
        image_bytes if flags else None,
    )  # fmt: skip


def check_block_bytes(reader: BodyReader, block_bytes: int) -> None:
    """Refuse what is no power of two that sums may have for a block."""
    if not MIN_BLOCK_BYTES <= block_bytes <= MAX_BLOCK_BYTES or block_bytes & (block_bytes - 1):
        reader.refuse(f"its block size is {block_bytes} bytes")
