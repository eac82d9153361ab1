# SPDX-License-Identifier: Apache-2.0
"""librsync's signatures and deltas, for the `rdiff` program at the other end.

Reads      files, as image sources; signatures and deltas of librsync 2.x, with BLAKE2 sums.
Writes     the same. A delta is not what the `rdiff` program would write byte for byte: neighbouring copies become one, so that
           it is a little smaller.
Memory     of a delta: 8 bytes a block of the old file beside its strong sum, and some 20 for the index.
Invariant  none for the result: a delta carries no digest of the new file. An old file that is not the one that was signed is
           noticed only where it is too short.
ImageSource     librsync, doc/formats.md; the rsync algorithm (Tridgell, 1999).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from deltaimg.engine.files.assemble import Assembler, assemble
from deltaimg.engine.files.interface import DeltaResult, PatchResult, SignatureResult
from deltaimg.engine.files.rdiff_delta import RdiffDeltaWriter
from deltaimg.engine.files.rdiff_search import RdiffSearch, sum_blocks
from deltaimg.engine.files.spans import Span, walk_spans
from deltaimg.engine.files.stitch import Op, Stitcher
from deltaimg.engine.files.streams import Input, Output
from deltaimg.engine.progress import Progress, stage
from deltaimg.errors import UsageError
from deltaimg.format.delta import COPY, LITERAL, ZERO
from deltaimg.format.rdiff import (
    MAX_BLOCK_BYTES,
    MAX_STRONG_BYTES,
    Copy,
    build_rdiff_blocks,
    build_rdiff_head,
    choose_block_bytes,
    parse_rdiff_delta,
    parse_rdiff_signature,
)
from deltaimg.image.source import ImageSource
from deltaimg.image.target import ImageTarget

_ZERO_BLOCK_BYTES = 4096
_HOLE_ROWS = 1 << 16


class RdiffFormat:
    """What the rdiff program of librsync 2.3 reads and writes."""

    name: ClassVar[str] = "rdiff"
    summary: ClassVar[str] = "for the rdiff program at the other end (BLAKE2, RabinKarp); the result cannot be verified"

    # -- signature ---------------------------------------------------------------------------------------------------

    def sign(
        self, old: ImageSource, signature: Output, *, block_bytes: int | None, progress: Progress
    ) -> SignatureResult:
        """Write weak and strong sums of all blocks; raises UsageError for a block size that is not valid."""
        size = block_bytes or choose_block_bytes(old.size_bytes)
        if not 1 <= size <= MAX_BLOCK_BYTES:
            raise UsageError(f"a block size of {size} bytes", hint="1 to 64M, for the format 'rdiff'")
        signature.write(build_rdiff_head(size, MAX_STRONG_BYTES))

        def sum_up(span: Span) -> bytes:
            whole = span.length // size * size
            rows = build_rdiff_blocks(*sum_blocks(span.content[:whole], size))
            rest = span.content[whole : span.length]
            return rows + build_rdiff_blocks(*sum_blocks(rest, len(rest))) if len(rest) else rows

        zero_row = build_rdiff_blocks(*sum_blocks(memoryview(bytes(size)), size))
        done = 0
        with stage(progress, "signing", old.size_bytes):
            for start, end, rows in walk_spans(old, sum_up, block_bytes=size):
                _write_repeated(signature, zero_row, (start - done) // size)
                signature.write(rows)
                progress.advance(end - start)
                done = end
        image_bytes = old.size_bytes or 0
        _write_repeated(signature, zero_row, (image_bytes - done) // size)
        rest = (image_bytes - done) % size
        if rest:
            signature.write(build_rdiff_blocks(*sum_blocks(memoryview(bytes(rest)), rest)))
        return SignatureResult(image_bytes, size, signature.written_bytes)

    # -- delta -------------------------------------------------------------------------------------------------------

    def make_delta(self, signature: Input, new: ImageSource, delta: Output, *, progress: Progress) -> DeltaResult:
        """Write copies and literals that make `new` of the file that was signed."""
        with stage(progress, "reading the signature"):
            search = RdiffSearch(parse_rdiff_signature(signature.read, signature.name))
        with stage(progress, "comparing", new.size_bytes):
            stitcher, writer = Stitcher(), RdiffDeltaWriter(search, delta)
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

    def patch(self, old: ImageSource, delta: Input, target: ImageTarget, *, progress: Progress) -> PatchResult:
        """Make the new file; the format has no digest to verify it."""

        def read_ops() -> Iterator[Op]:
            for command in parse_rdiff_delta(delta.read, delta.name):
                if isinstance(command, Copy):
                    yield Op(COPY, command.length, command.offset)
                else:
                    yield Op(LITERAL, len(command), literal=memoryview(command))

        with stage(progress, "patching"):
            assembler = Assembler(old, target, block_bytes=_ZERO_BLOCK_BYTES)
            for _, length, _ in assemble(assembler, read_ops()):
                progress.advance(length)
        done = assembler.bytes_of
        return PatchResult(sum(done.values()), done[COPY], done[ZERO], done[LITERAL], is_verified=False)


def _write_repeated(signature: Output, row: bytes, count: int) -> None:
    while count:
        piece = min(count, _HOLE_ROWS)
        signature.write(row * piece)
        count -= piece
