# SPDX-License-Identifier: Apache-2.0
"""librsync's signatures and deltas, for the `rdiff` program at the other end.

They carry no digest of the whole: an old file that is not the one that was signed is found only where it is too short. What the
`rdiff` program would write is not written byte for byte: neighbouring copies become one, so deltas are a little smaller.

Memory  of a delta: 8 bytes a block of the old file beside its strong sum, and some 20 for the index.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from deltaimg.delta.rolling import build_index, whole_stretch
from deltaimg.engine.files.assemble import Assembler, assemble
from deltaimg.engine.files.interface import DeltaResult, PatchResult, SignatureResult
from deltaimg.engine.files.spans import Span, find_runs, walk_spans
from deltaimg.engine.files.stitch import SEGMENT, FoundSpan, Op, Segments, Stitcher, match_segments
from deltaimg.engine.files.streams import Input, Output
from deltaimg.engine.progress import Progress
from deltaimg.errors import UsageError
from deltaimg.format.delta import COPY, LITERAL, ZERO
from deltaimg.format.rdiff import (
    DELTA_END,
    DELTA_HEAD,
    MAX_BLOCK_BYTES,
    MAX_STRONG_BYTES,
    Copy,
    RdiffSignature,
    build_copy,
    build_literal_head,
    build_rdiff_blocks,
    build_rdiff_head,
    choose_block_bytes,
    parse_rdiff_delta,
    parse_rdiff_signature,
)
from deltaimg.image.source import Source
from deltaimg.image.target import Target
from deltaimg.kernels import StrongKind, Sums, WeakKind, blake2b_blocks, match_blocks, weak_sums

_ZERO_BLOCK_BYTES = 4096
_HOLE_ROWS = 1 << 16
_MAX_COPY_BYTES = 1 << 62
Strongs = npt.NDArray[np.uint8]


class RdiffFormat:
    """As the rdiff program of librsync 2.3 reads and writes."""

    name: ClassVar[str] = "rdiff"
    summary: ClassVar[str] = "for the rdiff program at the other end (BLAKE2, RabinKarp); nothing proves the result"

    # -- signature ---------------------------------------------------------------------------------------------------

    def sign(self, old: Source, signature: Output, *, block_bytes: int | None, progress: Progress) -> SignatureResult:
        size = block_bytes or choose_block_bytes(old.size_bytes)
        if not 1 <= size <= MAX_BLOCK_BYTES:
            raise UsageError(f"a block size of {size} bytes", hint="1 to 64M, for the format 'rdiff'")
        signature.write(build_rdiff_head(size, MAX_STRONG_BYTES))
        progress.start("signing", old.size_bytes)

        def sum_up(span: Span) -> bytes:
            whole = span.length // size * size
            rows = build_rdiff_blocks(*_sum_blocks(span.content[:whole], size))
            rest = span.content[whole : span.length]
            return rows + build_rdiff_blocks(*_sum_blocks(rest, len(rest))) if len(rest) else rows

        zero_row = build_rdiff_blocks(*_sum_blocks(memoryview(bytes(size)), size))
        done = 0
        for start, end, rows in walk_spans(old, sum_up, block_bytes=size):
            _write_repeated(signature, zero_row, (start - done) // size)
            signature.write(rows)
            progress.advance(end - start)
            done = end
        image_bytes = old.size_bytes or 0
        _write_repeated(signature, zero_row, (image_bytes - done) // size)
        rest = (image_bytes - done) % size
        if rest:
            signature.write(build_rdiff_blocks(*_sum_blocks(memoryview(bytes(rest)), rest)))
        return SignatureResult(image_bytes, size, signature.written_bytes)

    # -- delta -------------------------------------------------------------------------------------------------------

    def make_delta(self, signature: Input, new: Source, delta: Output, *, progress: Progress) -> DeltaResult:
        progress.start("reading the signature", None)
        search = _Search(parse_rdiff_signature(signature.read, signature.name))
        progress.start("comparing", new.size_bytes)
        stitcher, writer = Stitcher(), _DeltaWriter(search, delta)
        size = search.block_bytes
        for start, end, found in walk_spans(new, search.search, block_bytes=size, overlap_bytes=size - 1):
            for op in stitcher.add(start, end, found):
                writer.add(op)
            progress.advance(end - start)
        image_bytes = new.size_bytes or 0
        for op in stitcher.finish(image_bytes):
            writer.add(op)
        writer.finish()
        done = writer.bytes_of
        return DeltaResult(image_bytes, done[COPY], done[ZERO], done[LITERAL], delta.written_bytes)

    # -- patch -------------------------------------------------------------------------------------------------------

    def patch(self, old: Source, delta: Input, target: Target, *, progress: Progress) -> PatchResult:
        def read_ops() -> Iterator[Op]:
            for command in parse_rdiff_delta(delta.read, delta.name):
                if isinstance(command, Copy):
                    yield Op(COPY, command.length, command.offset)
                else:
                    yield Op(LITERAL, len(command), literal=memoryview(command))

        progress.start("patching", None)
        assembler = Assembler(old, target, block_bytes=_ZERO_BLOCK_BYTES)
        for _, length, _ in assemble(assembler, read_ops()):
            progress.advance(length)
        done = assembler.bytes_of
        return PatchResult(sum(done.values()), done[COPY], done[ZERO], done[LITERAL], is_verified=False)


def _sum_blocks(blocks: memoryview, size: int, kind: WeakKind = WeakKind.RABIN_KARP) -> tuple[Sums, Strongs]:
    return weak_sums(kind, blocks, size), blake2b_blocks(blocks, size)


def _write_repeated(signature: Output, row: bytes, count: int) -> None:
    while count:
        piece = min(count, _HOLE_ROWS)
        signature.write(row * piece)
        count -= piece


class _Search:
    """The old file's sums, and the search for its blocks in a new one."""

    def __init__(self, signature: RdiffSignature) -> None:
        self.block_bytes = size = signature.block_bytes
        self._signature = signature
        self._kind = WeakKind.ROLLSUM if signature.is_rollsum else WeakKind.RABIN_KARP
        self.strong_bytes = signature.strongs.shape[1]
        self._index = build_index(self._kind, StrongKind.BLAKE2B, signature.weaks, signature.strongs, block_bytes=size)
        weak, strong = _sum_blocks(memoryview(bytes(size)), size, self._kind)
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
        values += np.uint32(31)
        sums = np.cumsum(values[::-1], dtype=np.uint32)[::-1]
        # Each byte counts once for itself and once for each byte before it in the suffix.
        weighted = np.cumsum((values * lengths)[::-1], dtype=np.uint32)[::-1]
        found = (weighted & np.uint32(0xFFFF)) << np.uint32(16) | sums & np.uint32(0xFFFF)
    else:
        powers = np.ones(len(values) + 1, np.uint32)
        powers[1:] = np.cumprod(np.full(len(values), 0x08104225, np.uint32), dtype=np.uint32)
        # What follows a byte is its exponent, from the end.
        found = np.cumsum((values * powers[lengths - 1])[::-1], dtype=np.uint32)[::-1] + powers[lengths]
    yield from np.flatnonzero(found == np.uint32(weak)).tolist()


class _DeltaWriter:
    """Writes operations as commands; zeros as copies of old zeros, as long as there are any."""

    def __init__(self, search: _Search, delta: Output) -> None:
        self._delta, self._size = delta, search.block_bytes
        runs = find_runs(search.is_zero)
        longest = int(np.argmax(runs[:, 1] - runs[:, 0])) if len(runs) else -1
        self._zeros = (
            (0, 0) if longest < 0 else (int(runs[longest, 0]) * self._size, int(runs[longest, 1]) * self._size)
        )
        self._runs = runs
        self._done = 0
        self._copy = (0, 0)
        """Offset and length of a copy that waits for one that continues it."""
        self.bytes_of = {ZERO: 0, COPY: 0, LITERAL: 0}
        delta.write(DELTA_HEAD)

    def add(self, op: Op) -> None:
        """Take the next operation."""
        self.bytes_of[op.kind] += op.length
        if op.kind == COPY:
            self._add_copy(op.old_offset, op.length)
        elif op.literal is not None:
            self._flush()
            self._delta.write(build_literal_head(op.length))
            self._delta.write(op.literal)
        else:
            self._add_zeros(op.length)
        self._done += op.length

    def finish(self) -> None:
        """Write what waits, and the end."""
        self._flush()
        self._delta.write(DELTA_END)

    def _add_copy(self, offset: int, length: int) -> None:
        if self._copy[1] and sum(self._copy) == offset:
            self._copy = (self._copy[0], self._copy[1] + length)
            return
        self._flush()
        self._copy = (offset, length)

    def _flush(self) -> None:
        if self._copy[1]:
            self._delta.write(build_copy(*self._copy))
        self._copy = (0, 0)

    def _add_zeros(self, length: int) -> None:
        """Make zeros of old ones: those at the same place, where there are some, else of the longest run that there is."""
        at, end = self._done, self._done + length
        place = int(np.searchsorted(self._runs[:, 1] * self._size, at, side="right"))
        while at < end:
            start, stop = (self._runs[place] * self._size).tolist() if place < len(self._runs) else (end, end)
            if at < start:
                stop = min(start, end)
                self._copy_zeros(stop - at)
            else:
                stop = min(stop, end)
                self._add_copy(at, stop - at)
                place += 1
            at = stop

    def _copy_zeros(self, length: int) -> None:
        start, end = self._zeros
        zeros = bytes(min(length, 1 << 20)) if start == end else b""
        while length:
            if start == end:
                piece = min(length, len(zeros))
                self._flush()
                self._delta.write(build_literal_head(piece))
                self._delta.write(memoryview(zeros)[:piece])
            else:
                piece = min(length, end - start)
                self._add_copy(start, piece)
            length -= piece
