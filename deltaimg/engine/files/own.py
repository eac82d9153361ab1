# SPDX-License-Identifier: Apache-2.0
"""deltaimg's own signatures and deltas.

A new file is held against the old one's sums block by block, where it lies; only what did not match is searched for old blocks
at any offset. What is new is compressed. The result is proven by the root digest of all its blocks before it gets its name.

Memory  of a delta: 30 bytes a block of the old file that is not zero, and the literals of one object.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import DIGEST_BYTES, Digests, sparse_zeros
from deltaimg.delta.rolling import build_index
from deltaimg.delta.signature import RootHasher
from deltaimg.engine.files.assemble import Assembler, assemble
from deltaimg.engine.files.interface import DeltaResult, PatchResult, SignatureResult
from deltaimg.engine.files.spans import Span, find_runs, walk_spans
from deltaimg.engine.files.stitch import SEGMENT, FoundSpan, Op, Stitcher, match_segments, run_segments
from deltaimg.engine.files.streams import Input, Output
from deltaimg.engine.progress import Progress
from deltaimg.errors import Malformed, UsageError, WrongOldFile
from deltaimg.format.delta import COPY, LITERAL, OP, ZERO, DeltaObject, build_delta, parse_delta
from deltaimg.format.framing import Kind
from deltaimg.format.sums import MAX_BLOCK_BYTES, MIN_BLOCK_BYTES, SumsObject, build_sums, parse_sums
from deltaimg.image.source import Source
from deltaimg.image.target import Target
from deltaimg.kernels import BlockIndex, StrongKind, Sums, WeakKind, digest_blocks, match_blocks, weak_sums
from deltaimg.model import count_blocks

STREAM_BLOCK_BYTES = 4096
_BLOCKS_PER_ROOT = 32
_PART_BLOCKS = 1 << 16
_PART_LITERAL_BYTES = 4 << 20
_PART_OPS = 1 << 16
_FEW_OPS = 1 << 12
"""Operations that are numbers of Python at a time: as such they take ten times their memory."""


def choose_block_bytes(size_bytes: int | None) -> int:
    """Return the power of two near a 32nd of the root of the size: 1 KiB up to 1 GiB, 4 KiB at 16 GiB, 32 KiB at 1 TiB."""
    if size_bytes is None:
        return STREAM_BLOCK_BYTES
    wanted = int(size_bytes**0.5) // _BLOCKS_PER_ROOT
    return min(MAX_BLOCK_BYTES, max(MIN_BLOCK_BYTES, 1 << max(0, wanted - 1).bit_length()))


class OwnFormat:
    """Compressed, sparse, proven."""

    name: ClassVar[str] = "deltaimg"
    summary: ClassVar[str] = "compressed, holes kept, the result proven by its digest"

    # -- signature ---------------------------------------------------------------------------------------------------

    def sign(self, old: Source, signature: Output, *, block_bytes: int | None, progress: Progress) -> SignatureResult:
        block_bytes = block_bytes or choose_block_bytes(old.size_bytes)
        if not MIN_BLOCK_BYTES <= block_bytes <= MAX_BLOCK_BYTES or block_bytes & (block_bytes - 1):
            raise UsageError(
                f"a block size of {block_bytes} bytes", hint="a power of two from 1K to 1M, for the format 'deltaimg'"
            )
        key = secrets.token_bytes(32)
        progress.start("signing", old.size_bytes)

        def sum_up(span: Span) -> tuple[Digests, Sums]:
            blocks = pad_blocks(span, block_bytes)
            return digest_blocks(key, blocks, block_bytes), weak_sums(WeakKind.WIDE, blocks, block_bytes)

        parts = _PartBuilder(key, block_bytes)
        for start, end, (digests, weaks) in walk_spans(old, sum_up, block_bytes=block_bytes):
            for part in parts.add(start // block_bytes, digests, weaks):
                signature.write(part)
            progress.advance(end - start)
        image_bytes = old.size_bytes or 0
        signature.write(parts.finish(image_bytes))
        return SignatureResult(image_bytes, block_bytes, signature.written_bytes)

    # -- delta -------------------------------------------------------------------------------------------------------

    def make_delta(self, signature: Input, new: Source, delta: Output, *, progress: Progress) -> DeltaResult:
        progress.start("reading the signature", None)
        sums = OldSums.read(signature)
        progress.start("comparing", new.size_bytes)
        root = RootHasher(sums.key)
        stitcher = Stitcher()
        writer = _DeltaWriter(sums, delta)
        size, overlap = sums.block_bytes, sums.block_bytes - 1
        for start, end, (digests, found) in walk_spans(new, sums.search, block_bytes=size, overlap_bytes=overlap):
            root.add(start // size, digests)
            for op in stitcher.add(start, end, found):
                writer.add(op)
            progress.advance(end - start)
        image_bytes = new.size_bytes or 0
        for op in stitcher.finish(image_bytes):
            writer.add(op)
        writer.finish(root.finish(size_bytes=image_bytes, block_bytes=size))
        done = writer.bytes_of
        return DeltaResult(image_bytes, done[COPY], done[ZERO], done[LITERAL], delta.written_bytes)

    # -- patch -------------------------------------------------------------------------------------------------------

    def patch(self, old: Source, delta: Input, target: Target, *, progress: Progress) -> PatchResult:
        first = _next_delta(delta)
        if old.size_bytes != first.old_bytes:
            raise WrongOldFile(
                old.path, f"has {old.size_bytes} bytes; the delta is for a file of {first.old_bytes} bytes"
            )
        key, size = first.key, first.block_bytes
        root = RootHasher(key)
        last = first

        def read_ops() -> Iterator[Op]:
            nonlocal last
            part, done = first, 0
            while True:
                if (part.key, part.block_bytes, part.old_bytes, part.new_start) != (key, size, first.old_bytes, done):
                    raise Malformed(delta.name, delta.position, "its parts do not belong together")
                literals, at = memoryview(part.literals), 0
                for kind, length, old_offset in _each_op(part):
                    if kind == LITERAL:
                        yield Op(LITERAL, length, literal=literals[at : at + length])
                        at += length
                    else:
                        yield Op(kind, length, old_offset)
                    done += length
                if part.root is not None:
                    break
                part = _next_delta(delta)
            last = part
            delta.expect_end()

        def prove(content: memoryview) -> Digests:
            return digest_blocks(key, content, size)

        progress.start("patching", None)
        assembler = Assembler(old, target, block_bytes=size, digest=prove)
        for start, length, digests in assemble(assembler, read_ops()):
            if digests is not None:
                root.add(start // size, digests)
            progress.advance(length)
        done = assembler.bytes_of
        image_bytes = sum(done.values())
        found = root.finish(size_bytes=image_bytes, block_bytes=size)
        if found != last.root:
            raise WrongOldFile(old.path, "is not the file that the delta is for: what came of it has another digest")
        return PatchResult(image_bytes, done[COPY], done[ZERO], done[LITERAL], is_verified=True)


def pad_blocks(span: Span, block_bytes: int) -> memoryview:
    """Return the blocks of a span, the last one filled up with zeros."""
    if span.length % block_bytes == 0:
        return span.content[: span.length]
    padded = bytearray(count_blocks(span.length, block_bytes) * block_bytes)
    padded[: span.length] = span.content[: span.length]
    return memoryview(padded)


class _PartBuilder:
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


class OldSums:
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
    def read(cls, signature: Input) -> OldSums:
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
            run_segments(find_runs(flags) + first, kind, size, end)
            for flags, kind in ((is_same, COPY), (is_zero, ZERO))
        ]
        is_new = ~(is_same | is_zero)
        if is_new.any():
            stretches = np.minimum(find_runs(is_new) * size, span.length)
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


class _DeltaWriter:
    """Gathers operations into objects of some size."""

    def __init__(self, sums: OldSums, delta: Output) -> None:
        self._sums, self._delta = sums, delta
        self._start = 0
        self._ops: list[tuple[int, int, int]] = []
        self._literals: list[memoryview] = []
        self._literal_bytes = self._length = 0
        self.bytes_of = {ZERO: 0, COPY: 0, LITERAL: 0}

    def add(self, op: Op) -> None:
        """Take the next operation."""
        self.bytes_of[op.kind] += op.length
        self._ops.append((op.kind, op.length, op.old_offset))
        self._length += op.length
        if op.literal is not None:
            self._literals.append(op.literal)
            self._literal_bytes += op.length
        if self._literal_bytes >= _PART_LITERAL_BYTES or len(self._ops) >= _PART_OPS:
            self._write(None)

    def finish(self, root: bytes) -> None:
        """Write the last object."""
        self._write(root)

    def _write(self, root: bytes | None) -> None:
        sums = self._sums
        content = DeltaObject(
            sums.key,
            sums.block_bytes,
            sums.image_bytes,
            self._start,
            np.array(self._ops, OP),
            b"".join(self._literals),
            root,
        )
        self._delta.write(build_delta(content))
        self._start += self._length
        self._ops.clear()
        self._literals.clear()
        self._literal_bytes = self._length = 0


def _each_op(part: DeltaObject) -> Iterator[tuple[int, int, int]]:
    for first in range(0, len(part.ops), _FEW_OPS):
        yield from part.ops[first : first + _FEW_OPS].tolist()


def _next_delta(delta: Input) -> DeltaObject:
    return parse_delta(delta.read_object(Kind.DELTA), delta.name)
