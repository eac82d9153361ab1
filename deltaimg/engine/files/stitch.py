# SPDX-License-Identifier: Apache-2.0
"""The operations that make a new file, put together span by span.

Spans are searched side by side, each a little way into the next: a match found at the end of one overlaps what the next one
found. Of overlapping ones the first stays, and the next is cut at its end.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.format.delta import COPY, LITERAL, ZERO
from deltaimg.kernels import BlockMatches

SEGMENT = np.dtype([("start", "<i8"), ("end", "<i8"), ("kind", "u1"), ("old_offset", "<i8")])
"""Bytes [start, end) of the new file that are zero, or a copy from `old_offset` on."""

Segments = npt.NDArray[np.void]


class FoundSpan(Struct, frozen=True):
    """What is known of a span: segments in order, apart, that may reach beyond its end; and its content, unless it has none."""

    segments: Segments
    content: memoryview | None


class Op(Struct, frozen=True):
    """One operation on the new file; `literal` is what it brings, if it is one."""

    kind: int
    length: int
    old_offset: int = 0
    literal: memoryview | None = None
    """With memory of its own."""


def match_segments(matches: BlockMatches, start: int, block_bytes: int) -> Segments:
    """Return matches, whose positions count from `start`, as segments."""
    segments = np.zeros(len(matches), SEGMENT)
    segments["start"] = matches["position"].astype(np.int64) + start
    segments["end"] = segments["start"] + matches["count"].astype(np.int64) * block_bytes
    segments["kind"] = COPY
    segments["old_offset"] = matches["block"].astype(np.int64) * block_bytes
    return segments


def run_segments(runs: npt.NDArray[np.int64], kind: int, block_bytes: int, end: int) -> Segments:
    """Return runs of block numbers as segments: zero, or a copy of the same place; none beyond `end`."""
    segments = np.zeros(len(runs), SEGMENT)
    segments["start"], segments["kind"] = runs[:, 0] * block_bytes, kind
    segments["end"] = np.minimum(runs[:, 1] * block_bytes, end)
    segments["old_offset"] = segments["start"] if kind == COPY else 0
    return segments


class Stitcher:
    """Turns spans into operations without gap or overlap; neighbours that continue each other become one."""

    def __init__(self) -> None:
        self.done = 0
        """How much of the new file the operations so far make, the one that waits included."""
        self._waiting: Op | None = None

    def add(self, start: int, end: int, found: FoundSpan) -> Iterator[Op]:
        """Yield what is certain, now that bytes [start, end) are known; what lies between spans is a hole."""
        if start > self.done:
            yield from self._append(Op(ZERO, start - self.done))
        for first, last, kind, old_offset in found.segments.tolist():
            if last <= self.done:
                continue
            if first > self.done:
                yield from self._append_literal(found, start, first)
            # Cut where something found earlier reaches into it.
            skipped = self.done - first
            yield from self._append(Op(kind, last - self.done, old_offset + skipped if kind == COPY else 0))
        if end > self.done:
            yield from self._append_literal(found, start, end)

    def finish(self, size_bytes: int) -> Iterator[Op]:
        """Yield what is left; the rest of the file is a hole."""
        if size_bytes > self.done:
            yield from self._append(Op(ZERO, size_bytes - self.done))
        if self._waiting is not None:
            yield self._waiting
        self._waiting = None

    def _append_literal(self, found: FoundSpan, span_start: int, end: int) -> Iterator[Op]:
        assert found.content is not None
        content = bytes(found.content[self.done - span_start : end - span_start])
        yield from self._append(Op(LITERAL, len(content), literal=memoryview(content)))

    def _append(self, op: Op) -> Iterator[Op]:
        last = self._waiting
        self.done += op.length
        follows = last is not None and (op.kind == ZERO or last.old_offset + last.length == op.old_offset)
        if last is not None and last.kind == op.kind != LITERAL and follows:
            self._waiting = Op(op.kind, last.length + op.length, last.old_offset)
            return
        if last is not None:
            yield last
        self._waiting = op
