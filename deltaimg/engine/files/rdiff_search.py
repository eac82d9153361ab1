# SPDX-License-Identifier: Apache-2.0
"""The search for an old file's blocks in a new one, by a signature of librsync.

Memory     8 bytes a block of the old file beside its strong sum, and some 20 for the index.
Source     librsync, src/rollsum.c and src/rabinkarp.c: the weak sums, which the native core computes, too (native/src/rolling).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from deltaimg.delta.rolling import build_index, whole_stretch
from deltaimg.engine.files.spans import Span
from deltaimg.engine.files.stitch import SEGMENT, FoundSpan, Segments, match_segments
from deltaimg.format.delta import COPY
from deltaimg.format.rdiff import RdiffSignature
from deltaimg.kernels import StrongKind, Sums, WeakKind, blake2b_blocks, match_blocks, weak_sums

Strongs = npt.NDArray[np.uint8]
"""Shape (count, strong_bytes)."""
_ROLLSUM_BIAS = 31
"""What librsync's rollsum adds to each byte (ROLLSUM_CHAR_OFFSET)."""
_RABIN_KARP_FACTOR = 0x08104225
"""librsync's RABINKARP_MULT."""


def sum_blocks(blocks: memoryview, size: int, kind: WeakKind = WeakKind.RABIN_KARP) -> tuple[Sums, Strongs]:
    """Return the weak and the strong sum of each block of `size` bytes; strong sums have shape (count, 32)."""
    return weak_sums(kind, blocks, size), blake2b_blocks(blocks, size)


class RdiffSearch:
    """The old file's sums, and the search for its blocks in a new one."""

    def __init__(self, signature: RdiffSignature) -> None:
        self.block_bytes = size = signature.block_bytes
        self._signature = signature
        self._kind = WeakKind.ROLLSUM if signature.is_rollsum else WeakKind.RABIN_KARP
        self.strong_bytes = signature.strongs.shape[1]
        self._index = build_index(self._kind, StrongKind.BLAKE2B, signature.weaks, signature.strongs, block_bytes=size)
        weak, strong = sum_blocks(memoryview(bytes(size)), size, self._kind)
        self.is_zero = (signature.weaks == weak[0]) & (signature.strongs == strong[0, : self.strong_bytes]).all(axis=1)

    def search(self, span: Span) -> FoundSpan:
        """Return what of a span is in the old file."""
        matches = match_blocks(self._index, span.content, whole_stretch(len(span.content)), span.start)
        segments = match_segments(matches, span.start, self.block_bytes)
        segments = segments[segments["start"] < span.start + span.length]
        if span.is_end and len(self._signature.weaks):
            segments = self._find_tail(span, segments)
        return FoundSpan(segments, span.content)

    def _find_tail(self, span: Span, segments: Segments) -> Segments:
        """Look for the old file's last block, which may be shorter than the others, at the end of the new file."""
        end = span.start + span.length
        done = max(int(segments["end"][-1]) if len(segments) else span.start, end - self.block_bytes + 1) - span.start
        weak, strong = int(self._signature.weaks[-1]), self._signature.strongs[-1]
        for at in _find_suffixes(self._kind, span.content[done : span.length], weak):
            tail = span.content[done + at : span.length]
            if (blake2b_blocks(tail, len(tail))[0, : self.strong_bytes] == strong).all():
                offset = (len(self._signature.weaks) - 1) * self.block_bytes
                found = np.array([(span.start + done + at, end, COPY, offset)], SEGMENT)
                return np.concatenate([segments.view("V25"), found.view("V25")]).view(SEGMENT)
        return segments


def _find_suffixes(kind: WeakKind, tail: memoryview, weak: int) -> Iterator[int]:
    """Yield where suffixes of `tail` with this weak sum begin, the longest first."""
    values = np.frombuffer(tail, np.uint8).astype(np.uint32)
    if not len(values):
        return
    lengths = np.arange(len(values), 0, -1, dtype=np.uint32)
    if kind == WeakKind.ROLLSUM:
        values += np.uint32(_ROLLSUM_BIAS)
        sums = np.cumsum(values[::-1], dtype=np.uint32)[::-1]
        # Each byte counts once for itself and once for each byte before it in the suffix.
        weighted = np.cumsum((values * lengths)[::-1], dtype=np.uint32)[::-1]
        found = (weighted & np.uint32(0xFFFF)) << np.uint32(16) | sums & np.uint32(0xFFFF)
    else:
        powers = np.ones(len(values) + 1, np.uint32)
        powers[1:] = np.cumprod(np.full(len(values), _RABIN_KARP_FACTOR, np.uint32), dtype=np.uint32)
        # What follows a byte is its exponent, from the end.
        found = np.cumsum((values * powers[lengths - 1])[::-1], dtype=np.uint32)[::-1] + powers[lengths]
    yield from np.flatnonzero(found == np.uint32(weak)).tolist()
