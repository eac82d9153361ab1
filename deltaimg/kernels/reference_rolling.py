# SPDX-License-Identifier: Apache-2.0
"""Weak sums, strong sums of blocks and the search for old blocks, in plain Python: see `reference`.

The search tries windows one by one and looks them up in dictionaries. It takes no allowance for windows that share a weak sum
with an old block and nothing else: where C gives up on some of these, this finds them all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
from msgspec import Struct

from deltaimg.arrays import Slots
from deltaimg.errors import NativeError
from deltaimg.kernels import reference
from deltaimg.kernels.layout import (
    BLOCK_MATCH,
    MIX,
    STRONG_BYTES,
    BlockIndex,
    BlockMatches,
    Buffer,
    Octets,
    StrongKind,
    Sums,
    WeakKind,
    view_octets,
)

_U32, _U64 = 2**32 - 1, 2**64 - 1
_POLYNOMIALS = (WeakKind.RABIN_KARP, WeakKind.WIDE)
_FIRST, _SECOND = 0x08104225, 0x915F77F5


def _demand(function: str, is_good: bool) -> None:
    if not is_good:
        raise NativeError(function, "BAD_ARGUMENT")


class RollingSum(Struct):
    """A weak sum of a window that grows, moves and shrinks byte by byte.

    `a` and `b` are the two polynomials, or the sum of the bytes and the sum of these sums.
    """

    kind: WeakKind
    window_bytes: int = 0
    a: int = 0
    b: int = 0

    def __post_init__(self) -> None:
        self.fill(b"")

    def fill(self, window: bytes | memoryview) -> None:
        """Make `window` the window."""
        self.window_bytes = 0
        self.a = self.b = 1 if self.kind in _POLYNOMIALS else 0
        for byte in window:
            self.add(byte)

    def drop(self, byte: int) -> None:
        """Let the first byte of the window go."""
        self.window_bytes -= 1
        if self.kind in _POLYNOMIALS:
            # What is left began as M^n, and had M times that and `byte` M^n times before it.
            self.a = (self.a - pow(_FIRST, self.window_bytes, 2**32) * (byte + _FIRST - 1)) & _U32
            self.b = (self.b - pow(_SECOND, self.window_bytes, 2**32) * (byte + _SECOND - 1)) & _U32
        else:
            self.a -= byte + self._offset
            self.b -= (self.window_bytes + 1) * (byte + self._offset)

    def add(self, byte: int) -> None:
        """Take one more byte in at the end of the window."""
        self.window_bytes += 1
        if self.kind in _POLYNOMIALS:
            self.a = (self.a * _FIRST + byte) & _U32
            self.b = (self.b * _SECOND + byte) & _U32
        else:
            self.a += byte + self._offset
            self.b += self.a

    @property
    def _offset(self) -> int:
        return 31 if self.kind == WeakKind.ROLLSUM else 0

    @property
    def weak(self) -> int:
        """The weak sum of the window."""
        if self.kind == WeakKind.RABIN_KARP:
            return self.a
        if self.kind == WeakKind.WIDE:
            return self.a << 8 | self.b >> 24
        if self.kind == WeakKind.ROLLSUM:
            return (self.b & 0xFFFF) << 16 | self.a & 0xFFFF
        return (self.b << 16 | self.a) & _U64


def weak_sums(kind: WeakKind, data: Buffer, block_bytes: int) -> Sums:
    """Return the weak sum of each block, shape (count,), uint64; all blocks are whole."""
    view = view_octets(data)
    _demand("weak_sums", block_bytes > 0 and len(view) % block_bytes == 0)
    sums = np.empty(len(view) // block_bytes, np.uint64)
    rolling = RollingSum(kind)
    for i in range(len(sums)):
        rolling.fill(view[i * block_bytes : (i + 1) * block_bytes])
        sums[i] = rolling.weak
    return sums


def fill_filter(kind: WeakKind, weaks: Sums, filter_bits: int) -> Slots:
    """Return 2 ** filter_bits bits in words of 32, two of them set for each weak sum."""
    _demand("fill_filter", 8 <= filter_bits <= 27 and weaks.dtype == np.uint64)
    if kind == WeakKind.RABIN_KARP:
        hashes = weaks.astype(np.uint32)
    elif kind == WeakKind.WIDE:
        hashes = (weaks >> np.uint64(8)).astype(np.uint32)
    else:
        hashes = ((weaks * np.uint64(MIX)) >> np.uint64(32)).astype(np.uint32)
    words = np.zeros(1 << (filter_bits - 5), np.uint32)
    places = (hashes >> np.uint32(37 - filter_bits)).astype(np.int64)
    for shift in (32 - filter_bits, 27 - filter_bits):
        np.bitwise_or.at(words, places, np.uint32(1) << (hashes >> np.uint32(shift) & np.uint32(31)))
    return words


def _digest(kind: StrongKind, key: bytes | None, block: bytes | memoryview) -> bytes:
    if kind == StrongKind.BLAKE2B:
        return hashlib.blake2b(block, digest_size=32).digest()
    if kind == StrongKind.MD5:
        return hashlib.md5(block, usedforsecurity=False).digest()
    assert key is not None
    return reference.digest_blocks(key, block, len(block)).tobytes()


def _strong_blocks(kind: StrongKind, data: Buffer, block_bytes: int) -> Octets:
    view = view_octets(data)
    _demand(f"{kind.name.lower()}_blocks", block_bytes > 0 and len(view) % block_bytes == 0)
    digests = [_digest(kind, None, view[i : i + block_bytes]) for i in range(0, len(view), block_bytes)]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, STRONG_BYTES[kind]).copy()


def blake2b_blocks(data: Buffer, block_bytes: int) -> Octets:
    """Return the unkeyed BLAKE2b digest of each block, shape (count, 32); blocks have any size, all the same."""
    return _strong_blocks(StrongKind.BLAKE2B, data, block_bytes)


def md5_blocks(data: Buffer, block_bytes: int) -> Octets:
    """Return the MD5 of each block, shape (count, 16); blocks have any size, all the same."""
    return _strong_blocks(StrongKind.MD5, data, block_bytes)


def match_blocks(index: BlockIndex, data: Buffer, stretches: Sums, first_position: int = 0) -> BlockMatches:
    """Return `BLOCK_MATCH`es of old blocks in `data`, ascending, no two overlap.

    Args:
        stretches: shape (count, 2), [start, end) in bytes: where to search. first_position: of `data` in the file.
    """
    view = view_octets(data)
    known = set(index.weaks[index.blocks].tolist())
    by_strong: dict[tuple[int, bytes], int] = {}
    for block in index.blocks.tolist():
        _demand("match_blocks", block < len(index.weaks))
        by_strong[int(index.weaks[block]), index.strongs[block].tobytes()] = block
    found: list[list[int]] = []
    for start, end in stretches.tolist():
        _demand("match_blocks", start <= end <= len(view))
        for position, block in _search(index, view, start, end, known, by_strong, found, first_position):
            last = found[-1] if found else None
            if last and last[0] + last[2] * index.block_bytes == position and last[1] + last[2] == block:
                last[2] += 1
            else:
                found.append([position, block, 1])
    return np.array([tuple(each) for each in found], BLOCK_MATCH)


def _search(
    index: BlockIndex, view: memoryview, start: int, end: int, known: set[int],
    by_strong: dict[tuple[int, bytes], int], found: list[list[int]], first_position: int,
) -> Iterator[tuple[int, int]]:  # fmt: skip
    size = index.block_bytes
    rolling = RollingSum(index.weak_kind)
    position, is_fresh = start, True
    while position + size <= end:
        if is_fresh:
            rolling.fill(view[position : position + size])
        is_fresh = False
        weak = rolling.weak
        if weak in known:
            strong = _digest(index.strong_kind, index.key, view[position : position + size])[: index.strongs.shape[1]]
            block = by_strong.get((weak, strong))
            if block is not None:
                if index.prefers_next:
                    block = _prefer(index, weak, strong, position, first_position, found, block)
                yield position, block
                position += size
                is_fresh = True
                continue
        if position + size < end:
            rolling.drop(view[position])
            rolling.add(view[position + size])
        position += 1


def _prefer(
    index: BlockIndex, weak: int, strong: bytes, position: int, first_position: int, found: list[list[int]], block: int
) -> int:
    """Return the equal block that continues the match before, else the one at the same offset, else `block`."""
    candidates = []
    if found and found[-1][0] + found[-1][2] * index.block_bytes == position:
        candidates.append(found[-1][1] + found[-1][2])
    if (first_position + position) % index.block_bytes == 0:
        candidates.append((first_position + position) // index.block_bytes)
    for each in candidates:
        is_there = each < len(index.weaks) and int(index.weaks[each]) == weak
        if is_there and index.strongs[each].tobytes() == strong:
            return each
    return block
