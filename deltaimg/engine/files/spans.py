# SPDX-License-Identifier: Apache-2.0
"""A file read in spans on all cores, holes passed over.

Memory  a buffer of a span and what overlaps the next one, for each span in flight.
"""

from __future__ import annotations

import mmap
import queue
from collections.abc import Callable, Iterator
from typing import TypeVar

from msgspec import Struct

from deltaimg.engine.pipeline import OrderedPool, count_workers
from deltaimg.engine.scan import split_spans
from deltaimg.errors import SourceChanged
from deltaimg.image.extents import NOT_EMPTY
from deltaimg.image.source import ImageSource
from deltaimg.model import MIB

SPAN_BYTES = 4 * MIB
Result = TypeVar("Result")


class Span(Struct, frozen=True):
    """Bytes [start, start + length) of a file, and in `content` some more that follow, as many as overlap the next span."""

    start: int
    length: int
    content: memoryview
    is_end: bool
    """Whether the file ends with this span."""


def choose_span_bytes(block_bytes: int) -> int:
    """Return the multiple of a block that is nearest to the usual size of a span."""
    return max(1, SPAN_BYTES // block_bytes) * block_bytes


def walk_spans(
    source: ImageSource, work: Callable[[Span], Result], *, block_bytes: int, overlap_bytes: int = 0
) -> Iterator[tuple[int, int, Result]]:
    """Yield start, end and what `work` made of each span, in order; what lies between them is a hole.

    Spans begin at multiples of `block_bytes` and have a whole number of blocks, but for the file's last. `work` runs on several
    threads; the content is valid until the next span is requested.
    """
    span_bytes = choose_span_bytes(block_bytes)
    buffers = _Buffers(span_bytes + overlap_bytes)
    if source.is_sequential:
        yield from _walk_stream(source, work, span_bytes, buffers)
        return
    size = source.size_bytes or 0

    def read(span: tuple[int, int]) -> tuple[int, int, Result, memoryview]:
        start, end = span
        wanted = min(end + overlap_bytes, size) - start
        buffer = buffers.take()
        got = source.read_into(start, buffer[:wanted])
        if got < wanted:
            raise SourceChanged(source.path, f"ends at byte {start + got}, earlier than when it was opened")
        return start, end, work(Span(start, end - start, buffer[:wanted], end == size)), buffer

    wanted = source.extents().align(block_bytes).find(*NOT_EMPTY)
    with OrderedPool(window=count_workers() + 1) as pool:
        for start, end, result, buffer in pool.map(read, split_spans(wanted, span_bytes)):
            yield start, end, result
            buffers.give_back(buffer)


class _Buffers:
    """Memory of one size, used again: fresh memory costs as much as copying into it."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._free: queue.SimpleQueue[memoryview] = queue.SimpleQueue()

    def take(self) -> memoryview:
        try:
            return self._free.get_nowait()
        except queue.Empty:
            return memoryview(mmap.mmap(-1, self._size))

    def give_back(self, buffer: memoryview) -> None:
        self._free.put(buffer)


def _walk_stream(
    source: ImageSource, work: Callable[[Span], Result], span_bytes: int, buffers: _Buffers
) -> Iterator[tuple[int, int, Result]]:
    """A stream is read by one, worked on by many."""

    def read_spans() -> Iterator[tuple[Span, memoryview]]:
        start, carried = 0, b""
        while source.size_bytes is None or carried:
            buffer = buffers.take()
            buffer[: len(carried)] = carried
            got = len(carried)
            if source.size_bytes is None:
                got += source.read_into(start + got, buffer[got:])
            length = min(got, span_bytes)
            carried = bytes(buffer[length:got])
            if length:
                yield Span(start, length, buffer[:got], source.size_bytes is not None and not carried), buffer
            start += length

    def run(read: tuple[Span, memoryview]) -> tuple[Span, Result, memoryview]:
        return read[0], work(read[0]), read[1]

    with OrderedPool(window=count_workers() + 1) as pool:
        for span, result, buffer in pool.map(run, read_spans()):
            yield span.start, span.start + span.length, result
            buffers.give_back(buffer)
