# SPDX-License-Identifier: Apache-2.0
"""Scan an image and compare it with the base: what a backup stores, and what a dry run counts."""

from __future__ import annotations

from collections.abc import Callable

from deltaimg.engine.backup.change_tracking import count_refuted, refute_claim
from deltaimg.engine.backup.context import BackupContext
from deltaimg.engine.backup.source_checks import check_length_so_far, count_total_bytes
from deltaimg.engine.progress import stage
from deltaimg.engine.scan import ScannedSpan, Scanner
from deltaimg.image.extents import FREE, UNCHANGED, Bounds


def compare_with_base(context: BackupContext, task: str, take: Callable[[ScannedSpan, memoryview], None]) -> None:
    """Read what may hold data, enter zeros in the new map, and hand on what changed.

    Args:
        task: what the stage is called. take: is given each span with changed blocks, and its content until it returns.

    Raises:
        ImageError: the source cannot be read. SizeMismatch: a stream is longer than expected.
    """
    source = context.source
    scanner = Scanner(
        source,
        block_key=context.repository.keys.block,
        block_bytes=context.block_bytes,
        base_runs=context.base.runs,
        base_digests=context.base.table.digests,
        workers=context.options.workers,
    )
    work = _Work(context, scanner, take)
    total = count_total_bytes(source, context.to_read, context.options, context.max_gap_bytes)
    with stage(context.progress, task, total):
        refuted = work.scan(context.to_read, context.max_gap_bytes)
    if context.tracking is not None and refuted:
        unread = refute_claim(context.request, context.tracking, refuted)
        with stage(context.progress, f"{task} the rest", count_total_bytes(source, unread, context.options, 0)):
            work.scan(unread, 0)


class _Work:
    """Scans parts of an image, one after another."""

    def __init__(
        self, context: BackupContext, scanner: Scanner, take: Callable[[ScannedSpan, memoryview], None]
    ) -> None:
        self._context, self._scanner, self._take = context, scanner, take
        self._done_bytes = 0
        self._unchanged = context.extents.find(UNCHANGED)
        self._free = context.extents.find(FREE)

    def scan(self, bounds: Bounds, max_gap_bytes: int) -> int:
        """Read and compare `bounds`; return how many blocks differ from the base that tracking calls unchanged."""
        context, refuted = self._context, 0
        for scanned in self._scanner.scan(bounds, max_gap_bytes):
            # A gap that is free is read with what is beside it, and still left out.
            span = scanned.without(self._free, context.block_bytes) if len(self._free) else scanned
            context.new_map.note_span(span)
            if context.is_tracked:
                refuted += count_refuted(span, self._unchanged, context.base, context.block_bytes)
            if span.content is not None:
                self._take(span, span.content)
            self._scanner.release(scanned)
            context.progress.advance(span.read_bytes)
            self._done_bytes += span.read_bytes
            check_length_so_far(context.source, self._done_bytes, context.options)
        return refuted
