# SPDX-License-Identifier: Apache-2.0
"""Read what may have changed, in spans, on all cores, and compare it with the base as it passes through the cache.

Memory  one buffer of `SPAN_BYTES` for each span that is being read or waits with changed blocks in it.
"""

from __future__ import annotations

import mmap
import queue
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from msgspec.structs import replace

from deltaimg.arrays import Digests, Runs
from deltaimg.engine.pipeline import OrderedPool, count_workers
from deltaimg.errors import SourceChanged
from deltaimg.image.extents import Bounds, are_inside
from deltaimg.image.source import ImageSource
from deltaimg.kernels import CHANGED, SAME, expand_runs, scan_blocks
from deltaimg.model import MIB

SPAN_BYTES = 4 * MIB
MAX_GAP_BYTES = MIB
"""A gap up to this size is read with the data around it; in the map it keeps the status that the image source reported."""


class ScannedSpan(Struct, frozen=True):
    """Blocks that were read: their digests, and runs of their statuses."""

    first_block: int
    read_bytes: int
    digests: Digests
    statuses: npt.NDArray[np.void]
    content: memoryview | None
    """The blocks themselves, zero-filled to whole blocks, where any of them is CHANGED; else None."""

    def without(self, bounds: Bounds, block_bytes: int) -> ScannedSpan:
        """Return the span with the blocks inside `bounds`, of whole blocks, called SAME: nothing is to be stored of them."""
        blocks = self.first_block + np.arange(len(self.digests), dtype=np.int64)
        is_left_out = are_inside(blocks * block_bytes, bounds)
        if not is_left_out.any():
            return self
        statuses = np.repeat(self.statuses["status"], self.statuses["count"])
        statuses[is_left_out] = SAME
        firsts = np.flatnonzero(np.concatenate(([True], statuses[1:] != statuses[:-1])))
        runs = np.empty(len(firsts), self.statuses.dtype)
        runs["first"], runs["status"] = firsts, statuses[firsts]
        runs["count"] = np.diff(np.append(firsts, len(statuses)))
        return replace(self, statuses=runs, content=self.content if (statuses == CHANGED).any() else None)


class Scanner:
    """Scans one source against one base map."""

    def __init__(
        self,
        source: ImageSource,
        *,
        block_key: bytes,
        block_bytes: int,
        base_runs: Runs,
        base_digests: Digests,
        workers: int | None = None,
    ) -> None:
        self._source = source
        self._block_key, self._block_bytes = block_key, block_bytes
        self._base_runs, self._base_digests = base_runs, base_digests
        self._workers = workers or count_workers()
        self._span_bytes = max(SPAN_BYTES, block_bytes)
        self._buffers: queue.SimpleQueue[memoryview] = queue.SimpleQueue()

    def scan(self, bounds: Bounds, max_gap_bytes: int = MAX_GAP_BYTES) -> Iterator[ScannedSpan]:
        """Yield the spans of `bounds` in image order, of a stream all that comes. Give each content back by `release`.

        Args:
            bounds: what to read, of whole blocks. max_gap_bytes: how large a gap may be that is read as well.
        """
        if self._source.is_sequential:
            yield from self._scan_stream()
            return
        spans = split_spans(bounds, self._span_bytes, max_gap_bytes)
        with OrderedPool(workers=self._workers, window=self._workers + 1) as pool:
            yield from pool.map(self._scan_span, spans)

    def release(self, span: ScannedSpan) -> None:
        """Give the memory of a span's content back for others to use."""
        if span.content is not None:
            self._buffers.put(memoryview(span.content.obj))

    def _scan_span(self, span: tuple[int, int]) -> ScannedSpan:
        start, end = span
        buffer = self._take_buffer()
        got = self._source.read_into(start, buffer[: end - start])
        if got < end - start:
            raise SourceChanged(self._source.path, f"ends at byte {start + got}, earlier than when it was opened")
        return self._compare(start, got, buffer)

    def _scan_stream(self) -> Iterator[ScannedSpan]:
        """A stream is read by one thread, and compared by many."""

        def read_spans() -> Iterator[tuple[int, int, memoryview]]:
            start = 0
            while self._source.size_bytes is None:
                buffer = self._take_buffer()
                got = self._source.read_into(start, buffer)
                if got:
                    yield start, got, buffer
                start += got

        def compare(span: tuple[int, int, memoryview]) -> ScannedSpan:
            return self._compare(*span)

        with OrderedPool(workers=self._workers, window=self._workers + 1) as pool:
            yield from pool.map(compare, read_spans())

    def _compare(self, start: int, got: int, buffer: memoryview) -> ScannedSpan:
        first_block = start // self._block_bytes
        block_count = -(-got // self._block_bytes)
        whole_bytes = block_count * self._block_bytes
        if got < whole_bytes:
            buffer[got:whole_bytes] = bytes(whole_bytes - got)
        base_slots = expand_runs(self._base_runs, first_block, block_count)
        content = buffer[:whole_bytes]
        digests, statuses = scan_blocks(self._block_key, content, self._block_bytes, base_slots, self._base_digests)
        if not np.any(statuses["status"] == CHANGED):
            self._buffers.put(buffer)
            return ScannedSpan(first_block, got, digests, statuses, None)
        return ScannedSpan(first_block, got, digests, statuses, content)

    def _take_buffer(self) -> memoryview:
        try:
            return self._buffers.get_nowait()
        except queue.Empty:
            return memoryview(mmap.mmap(-1, self._span_bytes))


def join_near(bounds: Bounds, max_gap_bytes: int = MAX_GAP_BYTES) -> Bounds:
    """Join what no more than `max_gap_bytes` part: what is read for `bounds`."""
    if not len(bounds):
        return bounds
    breaks = np.flatnonzero(bounds[1:, 0] - bounds[:-1, 1] > max_gap_bytes)
    firsts = np.concatenate((np.zeros(1, np.int64), breaks + 1))
    lasts = np.concatenate((breaks, np.full(1, len(bounds) - 1)))
    return np.stack((bounds[firsts, 0], bounds[lasts, 1]), axis=1)


def count_span_bytes(bounds: Bounds, max_gap_bytes: int = MAX_GAP_BYTES) -> int:
    """Return how many bytes the spans of `bounds` have: what is read, small gaps included."""
    joined = join_near(bounds, max_gap_bytes)
    return int((joined[:, 1] - joined[:, 0]).sum())


def split_spans(bounds: Bounds, span_bytes: int, max_gap_bytes: int = MAX_GAP_BYTES) -> Iterator[tuple[int, int]]:
    """Yield [start, end) in bytes of what is to be read, in order, none across a multiple of `span_bytes`.

    Args:
        bounds: what is wanted, of whole blocks; small gaps are read along.
    """
    for start, end in join_near(bounds, max_gap_bytes).tolist():
        position = start
        while position < end:
            stop = min(end, (position // span_bytes + 1) * span_bytes)
            yield position, stop
            position = stop
