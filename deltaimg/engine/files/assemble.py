# SPDX-License-Identifier: Apache-2.0
"""A new file made of operations: spans of it on all cores, holes kept.

Memory  a buffer for each span in flight, the literals that wait for theirs, and some thousand operations for each.
Always  what a span's content is, is digested before it is written, not read back.
Always  one thread writes, in order: two that write to one file wait for each other more than they work.
"""

from __future__ import annotations

import itertools
import queue
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
from msgspec import Struct, field

from deltaimg.arrays import Digests
from deltaimg.engine.files.spans import choose_span_bytes
from deltaimg.engine.files.stitch import Op
from deltaimg.engine.pipeline import OrderedPool, count_workers
from deltaimg.errors import SourceChanged, WrongOldFile
from deltaimg.format.delta import COPY, LITERAL, ZERO
from deltaimg.image.extents import NOT_EMPTY
from deltaimg.image.source import ImageSource
from deltaimg.image.target import ImageTarget
from deltaimg.model import count_blocks

_MAX_PIECE_OPS = 4096
"""An operation takes some hundred bytes of memory and may make a single one: this many are carried out before more are read."""


class _Piece(Struct):
    """A stretch of the new file, and the operations that make it; none where it is all zero."""

    start: int
    length: int = 0
    ops: list[Op] = field(default_factory=list)
    settled: int = 0
    """How many of the first operations are a sample of all."""


class _Made(Struct, frozen=True):
    piece: _Piece
    digests: Digests | None = None
    content: memoryview | None = None
    """None where it is all zero."""
    is_data: npt.NDArray[np.bool_] | None = None


class Assembler:
    """Makes pieces of a new file from an old one."""

    def __init__(
        self,
        old: ImageSource,
        target: ImageTarget,
        *,
        block_bytes: int,
        digest: Callable[[memoryview], Digests] | None = None,
    ) -> None:
        self.target = target
        self.span_bytes = choose_span_bytes(block_bytes)
        self.bytes_of = {ZERO: 0, COPY: 0, LITERAL: 0}
        self._old, self._old_bytes = old, old.size_bytes or 0
        self._block_bytes = block_bytes
        self._digest = digest
        self._data = old.extents().find(*NOT_EMPTY)
        self._buffers: queue.SimpleQueue[memoryview] = queue.SimpleQueue()

    def split_holes(self, op: Op) -> Iterator[Op]:
        """Yield a copy as what it copies: data, and holes of the old file, which need not be read."""
        end = op.old_offset + op.length
        if end > self._old_bytes:
            raise WrongOldFile(
                self._old.path, f"has {self._old_bytes} bytes; the delta copies bytes {op.old_offset} to {end}"
            )
        at = op.old_offset
        place = int(np.searchsorted(self._data[:, 1], at, side="right"))
        while at < end:
            start, stop = self._data[place].tolist() if place < len(self._data) else (end, end)
            if at < start:
                stop = min(start, end)
                yield Op(ZERO, stop - at)
                at = stop
                continue
            yield Op(COPY, min(stop, end) - at, at)
            at = min(stop, end)
            place += 1

    def settle(self, piece: _Piece) -> None:
        """Carry out the operations at a piece's end that were not settled before, and put what they make in their place."""
        ops = piece.ops[piece.settled :]
        content = memoryview(bytearray(sum(op.length for op in ops)))
        self._fill_all(ops, content)
        piece.ops[piece.settled :] = [Op(LITERAL, len(content), literal=content)]
        piece.settled += 1

    def make(self, piece: _Piece) -> _Made:
        """Make a piece in memory."""
        if not piece.ops:
            return _Made(piece)
        size = self._block_bytes
        padded = count_blocks(piece.length, size) * size
        buffer = self._take_buffer()[:padded]
        self._fill_all(piece.ops, buffer)
        buffer[piece.length :] = bytes(padded - piece.length)
        if self._digest is None:
            return _Made(piece, None, buffer, find_data(buffer, size))
        digests = self._digest(buffer)
        return _Made(piece, digests, buffer, np.asarray(digests.any(axis=1)))

    def write(self, made: _Made) -> None:
        """Write a piece; zeros become holes."""
        start, length, size = made.piece.start, made.piece.length, self._block_bytes
        self.target.grow(start + length)
        if made.content is None or made.is_data is None:
            self.target.clear(start, length)
            return
        edges = [0, *(np.flatnonzero(np.diff(made.is_data)) + 1).tolist(), len(made.is_data)]
        for first, last in itertools.pairwise(edges):
            at, end = first * size, min(last * size, length)
            if made.is_data[first]:
                self.target.write(start + at, made.content[at:end])
            else:
                self.target.clear(start + at, end - at)
        self._buffers.put(made.content)

    def _fill_all(self, ops: list[Op], room: memoryview) -> None:
        at = 0
        for op in ops:
            self._fill(op, room[at : at + op.length])
            at += op.length

    def _fill(self, op: Op, room: memoryview) -> None:
        if op.kind == ZERO:
            room[:] = bytes(op.length)
        elif op.literal is not None:
            room[:] = op.literal
        else:
            got = self._old.read_into(op.old_offset, room)
            if got < op.length:
                raise SourceChanged(
                    self._old.path, f"ends at byte {op.old_offset + got}, earlier than when it was opened"
                )

    def _take_buffer(self) -> memoryview:
        try:
            return memoryview(self._buffers.get_nowait().obj)
        except queue.Empty:
            return memoryview(bytearray(self.span_bytes))


def find_data(content: memoryview, block_bytes: int) -> npt.NDArray[np.bool_]:
    """Return which blocks are not all zero; `block_bytes` is a multiple of eight."""
    words = np.frombuffer(content, np.uint64).reshape(-1, block_bytes // 8)
    is_data: npt.NDArray[np.bool_] = np.asarray(words.any(axis=1))
    return is_data


def assemble(assembler: Assembler, ops: Iterator[Op]) -> Iterator[tuple[int, int, Digests | None]]:
    """Make the file of `ops`; yield start, length and digests of each piece, in order, no digests where it is all zero."""
    with OrderedPool(window=count_workers() + 1) as pool:
        for made in pool.map(assembler.make, _cut(assembler, ops)):
            assembler.write(made)
            yield made.piece.start, made.piece.length, made.digests


def _cut(assembler: Assembler, ops: Iterator[Op]) -> Iterator[_Piece]:
    """Cut operations at multiples of the span; whole spans of zeros become one piece without operations."""
    span = assembler.span_bytes
    piece = _Piece(0)
    for whole in ops:
        assembler.bytes_of[whole.kind] += whole.length
        for op in assembler.split_holes(whole) if whole.kind == COPY else (whole,):
            done = 0
            while done < op.length:
                at = piece.start + piece.length
                left = op.length - done
                if op.kind == ZERO and piece.length == 0 and left >= span:
                    length = left // span * span
                    yield _Piece(at, length)
                    piece = _Piece(at + length)
                else:
                    length = min(left, span - piece.length)
                    piece.ops.append(_part_of(op, done, length))
                    piece.length += length
                    if len(piece.ops) - piece.settled == _MAX_PIECE_OPS:
                        assembler.settle(piece)
                    if piece.length == span:
                        yield piece
                        piece = _Piece(at + length)
                done += length
    if piece.length:
        yield piece


def _part_of(op: Op, start: int, length: int) -> Op:
    literal = None if op.literal is None else op.literal[start : start + length]
    return Op(op.kind, length, op.old_offset + start, literal)
