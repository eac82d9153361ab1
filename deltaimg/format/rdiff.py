# SPDX-License-Identifier: Apache-2.0
"""librsync's signature and delta files, as `rdiff` reads and writes them. Integers are big-endian.

    signature := u32 magic, u32 block_bytes, u32 strong_bytes, block*
    block     := u32 weak sum, strong_bytes of strong sum
    delta     := u32 magic, command*, end
    command   := u8 opcode, parameters, literal bytes

Neither says how long the file is or has a digest of it; damage is often not found. Blocks' strong sums are BLAKE2b of 32
bytes, cut. Signatures with MD4 are refused: two files of one MD4 are made in no time.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from math import isqrt
from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.errors import Malformed, Truncated, UnsupportedFormat

SIGNATURE_HEAD: Final = struct.Struct(">III")
DELTA_MAGIC: Final = 0x72730236
SIGNATURE_MAGIC: Final = 0x72730147
"""RabinKarp and BLAKE2."""
ROLLSUM_MAGIC: Final = 0x72730137
"""The older rollsum and BLAKE2."""
MD4_MAGICS: Final = (0x72730136, 0x72730146)
DEFAULT_BLOCK_BYTES: Final = 2048
"""Of streams, whose length is not known."""
MIN_BLOCK_BYTES: Final = 256
MAX_BLOCK_BYTES: Final = 1 << 26
MAX_STRONG_BYTES: Final = 32

_END, _FIRST_COPY, _LAST_COPY = 0, 0x45, 0x54
_FIRST_LITERAL_N, _LAST_LITERAL_N = 0x41, 0x44
_WIDTHS: Final = (1, 2, 4, 8)
_INTEGERS: Final = {width: struct.Struct(f">{code}") for width, code in zip(_WIDTHS, "BHIQ", strict=True)}
_MAX_OFFSET: Final = 2**63 - 1


class RdiffSignature(Struct, frozen=True):
    """A signature: the sums of all blocks of a file, the last of which may be shorter than the others."""

    is_rollsum: bool
    """Weak sums are the older rollsum, not RabinKarp."""
    block_bytes: int
    weaks: npt.NDArray[np.uint64]
    strongs: npt.NDArray[np.uint8]
    """Shape (blocks, bytes of a strong sum)."""


def choose_block_bytes(size_bytes: int | None) -> int:
    """Return the size of blocks that `rdiff` takes for a file of `size_bytes`: near its root."""
    if size_bytes is None:
        return DEFAULT_BLOCK_BYTES
    return MIN_BLOCK_BYTES if size_bytes <= MIN_BLOCK_BYTES**2 else isqrt(size_bytes) & ~127


def build_rdiff_head(block_bytes: int, strong_bytes: int, *, is_rollsum: bool = False) -> bytes:
    """Return the first 12 bytes of a signature."""
    return SIGNATURE_HEAD.pack(ROLLSUM_MAGIC if is_rollsum else SIGNATURE_MAGIC, block_bytes, strong_bytes)


def _block_type(strong_bytes: int) -> np.dtype[np.void]:
    return np.dtype([("weak", ">u4"), ("strong", "u1", (strong_bytes,))])


def build_rdiff_blocks(weaks: npt.NDArray[np.uint64], strongs: npt.NDArray[np.uint8]) -> bytes:
    """Return the rows of some blocks."""
    rows = np.empty(len(weaks), _block_type(strongs.shape[1]))
    rows["weak"], rows["strong"] = weaks, strongs
    return rows.tobytes()


def parse_rdiff_signature(read: Callable[[int], bytes], name: str) -> RdiffSignature:
    """Read a signature; raises IntegrityError or UnsupportedFormat.

    Args:
        read: returns this many bytes of it, fewer only at its end; the rest with -1, once the head is valid.
    """
    head = read(SIGNATURE_HEAD.size)
    if len(head) < SIGNATURE_HEAD.size:
        raise Truncated(name, len(head), SIGNATURE_HEAD.size, len(head))
    magic, block_bytes, strong_bytes = SIGNATURE_HEAD.unpack(head)
    if magic in MD4_MAGICS:
        raise UnsupportedFormat(
            name, "is an rdiff signature with MD4, which is broken", hint="make it with BLAKE2: rdiff --hash blake2"
        )
    if magic == DELTA_MAGIC:
        raise Malformed(name, 0, "is an rdiff delta, not a signature")
    if magic not in (SIGNATURE_MAGIC, ROLLSUM_MAGIC):
        raise Malformed(name, 0, "is no rdiff signature")
    if not 1 <= block_bytes <= MAX_BLOCK_BYTES:
        raise Malformed(name, 4, f"its blocks have {block_bytes} bytes; 1 to {MAX_BLOCK_BYTES} are possible")
    if not 1 <= strong_bytes <= MAX_STRONG_BYTES:
        raise Malformed(name, 8, f"its strong sums have {strong_bytes} bytes; 1 to {MAX_STRONG_BYTES} are possible")
    kind = _block_type(strong_bytes)
    data = read(-1)
    if cut := len(data) % kind.itemsize:
        size = SIGNATURE_HEAD.size + len(data)
        raise Truncated(name, size, size - cut + kind.itemsize, size)
    rows = np.frombuffer(data, kind)
    if len(rows) >= 2**32 - 1:
        raise Malformed(name, SIGNATURE_HEAD.size, "it has more blocks than can be numbered")
    strongs = np.ascontiguousarray(rows["strong"]).reshape(len(rows), strong_bytes)
    return RdiffSignature(magic == ROLLSUM_MAGIC, block_bytes, rows["weak"].astype(np.uint64), strongs)


# -- deltas ------------------------------------------------------------------------------------------------------------


def _width_of(value: int) -> int:
    return 1 if value < 1 << 8 else 2 if value < 1 << 16 else 4 if value < 1 << 32 else 8


def build_copy(offset: int, length: int) -> bytes:
    """Return the command that copies `length` bytes of the old file from `offset` on."""
    first, second = _width_of(offset), _width_of(length)
    opcode = _FIRST_COPY + 4 * _WIDTHS.index(first) + _WIDTHS.index(second)
    return bytes([opcode]) + _INTEGERS[first].pack(offset) + _INTEGERS[second].pack(length)


def build_literal_head(length: int) -> bytes:
    """Return the command before `length` bytes of new content."""
    if length < _FIRST_LITERAL_N:
        return bytes([length])
    width = _width_of(length)
    return bytes([_FIRST_LITERAL_N + _WIDTHS.index(width)]) + _INTEGERS[width].pack(length)


DELTA_HEAD: Final = struct.pack(">I", DELTA_MAGIC)
DELTA_END: Final = bytes([_END])


class Copy(Struct, frozen=True):
    """Copy old bytes [offset, offset + length)."""

    offset: int
    length: int


def parse_rdiff_delta(read: Callable[[int], bytes], name: str) -> Iterator[Copy | bytes]:
    """Yield the commands of a delta: copies, and new content in pieces of at most a mebibyte.

    Args:
        read: returns this many bytes of the delta, fewer only at its end.

    Raises:
        IntegrityError: truncated, an unknown command, a copy of nothing or beyond any file, bytes behind the end.
    """
    position = 0

    def take(length: int) -> bytes:
        nonlocal position
        data = read(length)
        if len(data) < length:
            raise Truncated(name, position, length, len(data))
        position += length
        return data

    magic = int.from_bytes(take(4), "big")
    if magic in (SIGNATURE_MAGIC, ROLLSUM_MAGIC, *MD4_MAGICS):
        raise Malformed(name, 0, "is an rdiff signature, not a delta")
    if magic != DELTA_MAGIC:
        raise Malformed(name, 0, "is no rdiff delta")
    while True:
        at = position
        opcode = take(1)[0]
        if opcode == _END:
            break
        if opcode <= _LAST_LITERAL_N:
            length = opcode
            if opcode >= _FIRST_LITERAL_N:
                length = int.from_bytes(take(_WIDTHS[opcode - _FIRST_LITERAL_N]), "big")
            if not 1 <= length <= _MAX_OFFSET:
                raise Malformed(name, at, f"a literal of {length} bytes")
            while length:
                piece = take(min(length, 1 << 20))
                length -= len(piece)
                yield piece
        elif opcode <= _LAST_COPY:
            first, second = divmod(opcode - _FIRST_COPY, 4)
            offset = int.from_bytes(take(_WIDTHS[first]), "big")
            length = int.from_bytes(take(_WIDTHS[second]), "big")
            if length == 0 or offset + length > _MAX_OFFSET:
                raise Malformed(name, at, f"copies {length} bytes from byte {offset} on")
            yield Copy(offset, length)
        else:
            raise Malformed(name, at, f"an unknown command, {opcode:#04x}")
    if read(1):
        raise Malformed(name, position, "bytes follow its end")
