# SPDX-License-Identifier: Apache-2.0
"""A file read in spans on all cores, holes passed over.

Memory  a buffer of a span and what overlaps the next one, for each span in flight.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from deltaimg.engine.pipeline import OrderedPool, count_workers
from deltaimg.engine.scan import round_extents, split_spans
from deltaimg.errors import SourceChanged
from deltaimg.image.source import Source
from deltaimg.model import MIB

SPAN_BYTES = 4 * MIB
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Span:
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
    source: Source, work: Callable[[Span], Result], *, block_bytes: int, overlap_bytes: int = 0
) -> Iterator[tuple[int, int, Result]]:
    """Yield start, end and what `work` made of each span, in order; what lies between them is a hole.

    Spans begin at multiples of `block_bytes` and have a whole number of blocks, but for the file's last. `work` runs on several
    threads and may keep the content.
    """
    span_bytes = choose_span_bytes(block_bytes)
    if source.is_sequential:
        yield from _walk_stream(source, work, span_bytes, overlap_bytes)
        return
    size = source.size_bytes or 0

    def read(span: tuple[int, int]) -> tuple[int, int, Result]:
        start, end = span
        wanted = min(end + overlap_bytes, size) - start
        buffer = memoryview(mmap.mmap(-1, wanted))
        got = source.read_into(start, buffer)
        if got < wanted:
            raise SourceChanged(source.path, f"ends at byte {start + got}, earlier than when it was opened")
        return start, end, work(Span(start, end - start, buffer, end == size))

    with OrderedPool(read, window=count_workers() + 1) as pool:
        yield from pool.map(split_spans(round_extents(source, block_bytes), span_bytes))
    if source.has_changed():
        raise SourceChanged(source.path, "was written to while it was read", hint="freeze it first, or stop its guest")


def _walk_stream(
    source: Source, work: Callable[[Span], Result], span_bytes: int, overlap_bytes: int
) -> Iterator[tuple[int, int, Result]]:
    def read_spans() -> Iterator[Span]:
        start, carried = 0, b""
        while source.size_bytes is None or carried:
            buffer = memoryview(mmap.mmap(-1, span_bytes + overlap_bytes))
            buffer[: len(carried)] = carried
            got = len(carried)
            if source.size_bytes is None:
                got += source.read_into(start + got, buffer[got:])
            length = min(got, span_bytes)
            carried = bytes(buffer[length:got])
            if length:
                yield Span(start, length, buffer[:got], source.size_bytes is not None and not carried)
            start += length

    def run(span: Span) -> tuple[int, int, Result]:
        return span.start, span.start + span.length, work(span)

    with OrderedPool(run, window=count_workers() + 1) as pool:
        yield from pool.map(read_spans())


def find_runs(flags: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Return shape (count, 2): [first, end) of each longest run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
    return edges.reshape(-1, 2)
