# SPDX-License-Identifier: Apache-2.0
"""Signatures of deltaimg's own format: written span by span, and read for the search of an old file's blocks in a new one.

Reads      an old file's spans; a signature, object by object (docs/format.md, "Sums head").
Writes     a signature: objects of up to 65,536 blocks and a span, so that none is ever in memory as a whole.
Memory     30 bytes a block of the old file that is not zero: weak sum, half of the digest, and their index.
Invariant  a block matches if the first 8 bytes of its keyed digest do; the result is verified by the root digest.
Source     the rsync algorithm (Tridgell, "Efficient Algorithms for Sorting and Synchronization", 1999, chapter 3), with BLAKE3
           for its strong sum.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import DIGEST_BYTES, Digests, find_stretches, sparse_zeros
from deltaimg.delta.rolling import build_index
from deltaimg.engine.files.spans import Span
from deltaimg.engine.files.stitch import SEGMENT, FoundSpan, match_segments, run_segments
from deltaimg.engine.files.streams import Input
from deltaimg.errors import Malformed
from deltaimg.format.delta import COPY, ZERO
from deltaimg.format.framing import Kind
from deltaimg.format.sums import MAX_BLOCK_BYTES, MIN_BLOCK_BYTES, SumsObject, build_sums, parse_sums
from deltaimg.kernels import BlockIndex, StrongKind, Sums, WeakKind, digest_blocks, match_blocks
from deltaimg.model import count_blocks

STREAM_BLOCK_BYTES = 4096
_BLOCKS_PER_ROOT = 32
_PART_BLOCKS = 1 << 16


def choose_block_bytes(size_bytes: int | None) -> int:
    """Return the power of two near a 32nd of the root of the size: 1 KiB up to 1 GiB, 4 KiB at 16 GiB, 32 KiB at 1 TiB."""
    if size_bytes is None:
        return STREAM_BLOCK_BYTES
    wanted = int(size_bytes**0.5) // _BLOCKS_PER_ROOT
    return min(MAX_BLOCK_BYTES, max(MIN_BLOCK_BYTES, 1 << max(0, wanted - 1).bit_length()))


def pad_blocks(span: Span, block_bytes: int) -> memoryview:
    """Return the blocks of a span, the last one filled up with zeros."""
    if span.length % block_bytes == 0:
        return span.content[: span.length]
    padded = bytearray(count_blocks(span.length, block_bytes) * block_bytes)
    padded[: span.length] = span.content[: span.length]
    return memoryview(padded)


class SignatureBuilder:
    """Gathers the sums of spans into objects of some size."""

    def __init__(self, key: bytes, block_bytes: int) -> None:
        self._key, self._block_bytes = key, block_bytes
        self._first = self._end = 0
        self._digests: list[Digests] = []
        self._weaks: list[Sums] = []

    def add(self, first_block: int, digests: Digests, weaks: Sums) -> Iterator[bytes]:
        """Take the sums of blocks from `first_block` on; yield an object that is full, or has a gap behind it."""
        if self._digests and (first_block != self._end or self._end - self._first >= _PART_BLOCKS):
            yield self._build(None)
        if not self._digests:
            self._first = first_block
        self._digests.append(digests)
        self._weaks.append(weaks)
        self._end = first_block + len(digests)

    def finish(self, image_bytes: int) -> bytes:
        """Return the last object."""
        return self._build(image_bytes)

    def _build(self, image_bytes: int | None) -> bytes:
        digests = np.concatenate([np.empty((0, DIGEST_BYTES), np.uint8), *self._digests])
        weaks = np.concatenate([np.empty(0, np.uint64), *self._weaks])
        is_data = np.asarray(digests.any(axis=1))
        part = SumsObject(
            self._key, self._block_bytes, self._first if len(digests) else 0, is_data, weaks[is_data], digests[is_data, :8],
            image_bytes,
        )  # fmt: skip
        self._digests.clear()
        self._weaks.clear()
        return build_sums(part)


class OldSignature:
    """The sums of an old file, and the search for its blocks in a new one."""

    def __init__(
        self, key: bytes, block_bytes: int, image_bytes: int, is_data: npt.NDArray[np.bool_], weaks: Sums,
        strongs: npt.NDArray[np.uint64], known: npt.NDArray[np.int64],
    ) -> None:  # fmt: skip
        self.key, self.block_bytes, self.image_bytes = key, block_bytes, image_bytes
        self._is_data, self._strongs = is_data, strongs
        whole = image_bytes // block_bytes
        wanted = known[known < whole].astype(np.uint32)
        self._index: BlockIndex = build_index(
            WeakKind.WIDE, StrongKind.BLAKE3, weaks, strongs.view(np.uint8).reshape(-1, 8), block_bytes=block_bytes, key=key,
            wanted=wanted,
        )  # fmt: skip

    @classmethod
    def read(cls, signature: Input) -> OldSignature:
        """Read a signature; raises IntegrityError or UnsupportedFormat."""
        parts: list[SumsObject] = []
        end = 0
        while not parts or parts[-1].image_bytes is None:
            part = parse_sums(signature.read_object(Kind.SUMS), signature.name)
            first = parts[0] if parts else part
            is_behind = part.first_block >= end or not len(part.is_data)
            if (part.key, part.block_bytes) != (first.key, first.block_bytes) or not is_behind:
                raise Malformed(signature.name, signature.position, "its parts do not belong together")
            end = max(end, part.first_block + len(part.is_data))
            parts.append(part)
        signature.expect_end()
        image_bytes, size = parts[-1].image_bytes or 0, parts[0].block_bytes
        count = count_blocks(image_bytes, size)
        if end > count or count >= 2**32 - 1:
            raise Malformed(
                signature.name, signature.position, f"an image of {image_bytes} bytes does not have its blocks"
            )
        known = np.concatenate([part.first_block + np.flatnonzero(part.is_data) for part in parts])
        zeros = np.zeros if len(known) * 4 > count else sparse_zeros
        is_data, weaks, strongs = zeros(count, np.bool_), zeros(count, np.uint64), zeros(count, np.uint64)
        is_data[known] = True
        weaks[known] = np.concatenate([part.weaks for part in parts])
        strongs[known] = np.concatenate([part.strongs for part in parts]).view("<u8").reshape(-1)
        return cls(parts[0].key, size, image_bytes, is_data, weaks, strongs, known)

    def search(self, span: Span) -> tuple[Digests, FoundSpan]:
        """Return the digests of a span's blocks, and what of the span is zero or in the old file."""
        size = self.block_bytes
        digests = digest_blocks(self.key, pad_blocks(span, size), size)
        first = span.start // size
        end = span.start + span.length
        is_zero = ~np.asarray(digests.any(axis=1))
        is_same = self._compare(first, digests, end if span.is_end else None)
        runs = [
            run_segments(find_stretches(flags) + first, kind, size, end)
            for flags, kind in ((is_same, COPY), (is_zero, ZERO))
        ]
        is_new = ~(is_same | is_zero)
        if is_new.any():
            stretches = np.minimum(find_stretches(is_new) * size, span.length)
            if stretches[-1, 1] == span.length:
                stretches[-1, 1] = len(span.content)
            matches = match_blocks(self._index, span.content, stretches.astype(np.uint64), span.start)
            runs.append(match_segments(matches, span.start, size))
        segments = np.concatenate([each.view("V25") for each in runs]).view(SEGMENT)
        segments = segments[np.argsort(segments["start"], kind="stable")]
        segments = segments[segments["start"] < end]
        return digests, FoundSpan(segments, span.content if is_new.any() else None)

    def _compare(self, first: int, digests: Digests, new_end: int | None) -> npt.NDArray[np.bool_]:
        """Return which blocks are in the old file at the same place. `new_end` is where the new file ends, if it does."""
        is_same = np.zeros(len(digests), np.bool_)
        known = min(len(self._strongs) - first, len(digests))
        if known > 0:
            found = np.ascontiguousarray(digests[:known, :8]).view("<u8").reshape(-1)
            is_same[:known] = self._is_data[first : first + known] & (found == self._strongs[first : first + known])
            # A short last block was digested with zeros behind it: it is the same only in a file of the same length.
            is_short = self.image_bytes % self.block_bytes != 0
            if is_short and first + known == len(self._strongs) and new_end != self.image_bytes:
                is_same[known - 1] = False
        return is_same
