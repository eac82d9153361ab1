# SPDX-License-Identifier: Apache-2.0
"""Compare an image with a snapshot, block by block, by digests.

Reads   the image, as far as it is not known to be empty; of the repository only metadata.
Memory  as of a scan, 16 bytes a run of equal or of differing blocks, and the snapshot's map and digests.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

import numpy as np
from msgspec import Struct

from deltaimg.arrays import FIRST_SLOT, RUN, ZERO, Runs, empty_runs, end_blocks, join_runs
from deltaimg.engine.content.snapshot import SnapshotContent
from deltaimg.engine.progress import NoProgress, Progress, stage
from deltaimg.engine.scan import ScannedSpan, Scanner, count_span_bytes
from deltaimg.errors import SizeMismatch
from deltaimg.format.manifest import Manifest
from deltaimg.image.extents import NOT_EMPTY
from deltaimg.image.prefix import PrefixSource
from deltaimg.image.source import ImageSource
from deltaimg.kernels import CHANGED, SAME, BlockStatus, overlay_runs, subtract_runs
from deltaimg.model import Extent
from deltaimg.repo.index import load_index
from deltaimg.repo.lock import ReaderLock
from deltaimg.repo.repository import Repository


class ComparedImage(Struct, frozen=True):
    """How an image differs from a snapshot; extents ascend, and may touch.

    `tail_bytes` follow the image on a larger device or in a longer stream, and were not compared.
    """

    manifest: Manifest
    read_bytes: int
    differing: tuple[Extent, ...]
    tail_bytes: int
    duration_s: float


def compare_image(
    repository: Repository, manifest: Manifest, source: ImageSource, *, progress: Progress | None = None
) -> ComparedImage:
    """Digest an image and compare it, block by block, with what a snapshot holds.

    Raises:
        SizeMismatch: the image is smaller than the snapshot; or larger, and a file.
    """
    progress = progress or NoProgress()
    started = time.monotonic()
    with ReaderLock(repository, f"comparison with {manifest.label}", datetime.now(UTC)):
        # All that is needed of the repository is read here.
        content = SnapshotContent(repository, manifest, load_index(repository))
    if not source.is_sequential:
        _check_size(source, manifest)
    writer = source.find_writer()
    if writer is not None:
        progress.warn(f"{source.path}: is {writer}; what is read of it may be inconsistent")
    whole, source = source, PrefixSource(source, manifest.size_bytes)
    block = manifest.block_bytes
    scanner = Scanner(
        source,
        block_key=repository.keys.block,
        block_bytes=block,
        base_runs=content.runs,
        base_digests=content.table.digests,
    )
    to_read = source.extents().align(block).find(*NOT_EMPTY)
    same, changed = [empty_runs()], [empty_runs()]
    read_bytes = 0
    with stage(progress, "comparing", None if source.is_sequential else count_span_bytes(to_read)):
        for span in scanner.scan(to_read):
            same.append(_as_runs(span, SAME))
            changed.append(_as_runs(span, CHANGED))
            scanner.release(span)
            read_bytes += span.read_bytes
            progress.advance(span.read_bytes)
    tail_bytes = source.count_tail_bytes()
    _check_size(whole, manifest)
    expected = content.runs[content.runs["slot"] >= FIRST_SLOT].copy()
    expected["slot"] = ZERO
    missing = subtract_runs(expected, overlay_runs(join_runs(same), empty_runs()))
    differing = overlay_runs(missing, join_runs(changed))
    starts = (differing["first_block"] * np.uint64(block)).tolist()
    ends = (end_blocks(differing) * np.uint64(block)).tolist()
    extents_found = tuple(Extent(start, min(end, manifest.size_bytes)) for start, end in zip(starts, ends, strict=True))
    return ComparedImage(manifest, read_bytes, extents_found, tail_bytes, _since(started))


def _as_runs(span: ScannedSpan, status: BlockStatus) -> Runs:
    """Return the blocks of a span that have one status, as runs whose slots have no meaning."""
    chosen = span.statuses[span.statuses["status"] == status]
    runs = np.empty(len(chosen), RUN)
    runs["first_block"] = chosen["first"].astype(np.uint64) + np.uint64(span.first_block)
    runs["count"], runs["slot"] = chosen["count"], ZERO
    return runs


def _check_size(source: ImageSource, manifest: Manifest) -> None:
    size_bytes = source.size_bytes or 0
    is_larger_place = size_bytes > manifest.size_bytes and (source.is_device or source.is_sequential)
    if size_bytes != manifest.size_bytes and not is_larger_place:
        raise SizeMismatch(
            source.path, f"has {source.size_bytes} bytes; snapshot {manifest.label} has {manifest.size_bytes}"
        )


def _since(started: float) -> float:
    return round(time.monotonic() - started, 3)
