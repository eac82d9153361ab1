# SPDX-License-Identifier: Apache-2.0
"""Scan an image and compare it with the base: what a backup stores, and what a dry run counts."""

from __future__ import annotations

from collections.abc import Callable

from deltaimg.engine.backup.context import BackupContext
from deltaimg.engine.backup.source_checks import check_length_so_far, count_total_bytes
from deltaimg.engine.progress import stage
from deltaimg.engine.scan import ScannedSpan, Scanner


def compare_with_base(context: BackupContext, task: str, take: Callable[[ScannedSpan, memoryview], None]) -> None:
    """Read what may hold data, enter zeros in the new map, and hand on what changed.

    Args:
        task: what the stage is called. take: is given each span with changed blocks, and its content until it returns.

    Raises:
        ImageError: the source cannot be read. SizeMismatch: a stream is longer than expected.
    """
    source, progress = context.source, context.progress
    scanner = Scanner(
        source,
        block_key=context.repository.keys.block,
        block_bytes=context.block_bytes,
        base_runs=context.base.runs,
        base_digests=context.base.table.digests,
        workers=context.options.workers,
    )
    done_bytes = 0
    with stage(progress, task, count_total_bytes(source, context.to_read, context.options)):
        for span in scanner.scan(context.to_read):
            context.new_map.note_span(span)
            if span.content is not None:
                take(span, span.content)
                scanner.release(span)
            progress.advance(span.read_bytes)
            done_bytes += span.read_bytes
            check_length_so_far(source, done_bytes, context.options)
