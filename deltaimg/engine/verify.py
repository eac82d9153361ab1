# SPDX-License-Identifier: Apache-2.0
"""Prove that snapshots can be restored, without writing an image; or that an image still is what a snapshot holds."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from deltaimg.arrays import FIRST_SLOT, RUN, ZERO, Runs, empty_runs, end_blocks, join_runs
from deltaimg.engine.content import SnapshotContent
from deltaimg.engine.progress import NoProgress, Progress
from deltaimg.engine.scan import ScannedSpan, Scanner, round_extents
from deltaimg.errors import SizeMismatch
from deltaimg.format.manifest import Manifest
from deltaimg.image.source import Source
from deltaimg.kernels import CHANGED, SAME, BlockStatus, overlay_runs, subtract_runs
from deltaimg.model import DamagedExtent
from deltaimg.repo.index import load_index
from deltaimg.repo.repository import Repository


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """What was proven of one snapshot: records and bytes of its content, and the extents that are damaged."""

    manifest: Manifest
    records: int
    records_total: int
    verified_bytes: int
    duration_s: float
    damage: tuple[DamagedExtent, ...]


def verify(
    repository: Repository,
    manifests: Iterable[Manifest],
    *,
    percent: float = 100.0,
    progress: Progress | None = None,
    seed: int | None = None,
    workers: int | None = None,
) -> list[VerifyResult]:
    """Read and prove the content of snapshots, each record once however many of them need it.

    Args:
        percent: of the records of each snapshot, chosen by chance anew in each run.
        seed: makes the choice repeatable.

    Raises:
        SnapshotError, IntegrityError, StoreError: a snapshot's map or digests are damaged. Damaged content is in the results.
    """
    progress = progress or NoProgress()
    index = load_index(repository)
    proven = np.zeros(len(index), np.bool_)
    damaged: dict[int, str] = {}
    chance = random.Random(seed)
    results = []
    for manifest in manifests:
        started = time.monotonic()
        progress.start(f"planning {manifest.label}", None)
        content = SnapshotContent(repository, manifest, index)
        records = content.records
        wanted = math.ceil(len(records) * percent / 100)
        chosen = records[np.sort(np.array(chance.sample(range(len(records)), wanted), np.int64))]
        fresh = chosen[~proven[content.table.entries[chosen]]]
        progress.start(f"verifying {manifest.label}", content.bytes_of(fresh))
        damage = [
            DamagedExtent(start, end, damaged[int(content.table.entries[record])])
            for record in chosen.tolist()
            if int(content.table.entries[record]) in damaged
            for start, end in content.extents_of(record)
        ]
        for walked in content.walk(content.read_groups(fresh), None, keep_going=True, workers=workers):
            progress.advance(walked.supplied_bytes)
            damage += walked.damage
            damaged.update({int(content.table.entries[record]): reason for record, reason in walked.damaged_records})
        proven[content.table.entries[chosen]] = True
        damage.sort(key=lambda extent: extent.start)
        took = round(time.monotonic() - started, 3)
        results.append(VerifyResult(manifest, len(chosen), len(records), content.bytes_of(chosen), took, tuple(damage)))
    return results


@dataclass(frozen=True, slots=True)
class ComparedImage:
    """How an image differs from a snapshot: extents in bytes, ascending."""

    manifest: Manifest
    read_bytes: int
    differing: tuple[tuple[int, int], ...]
    duration_s: float


def compare_image(
    repository: Repository, manifest: Manifest, source: Source, *, progress: Progress | None = None
) -> ComparedImage:
    """Digest an image and compare it, block by block, with what a snapshot holds.

    Raises:
        SizeMismatch: the image has another size than the snapshot.
    """
    progress = progress or NoProgress()
    started = time.monotonic()
    content = SnapshotContent(repository, manifest)
    if not source.is_sequential:
        _check_size(source, manifest)
    block = manifest.block_bytes
    scanner = Scanner(
        source,
        block_key=repository.keys.block,
        block_bytes=block,
        base_runs=content.runs,
        base_digests=content.table.digests,
    )
    extents = round_extents(source, block)
    progress.start("comparing", None if source.is_sequential else int((extents[:, 1] - extents[:, 0]).sum()))
    same, changed = [empty_runs()], [empty_runs()]
    read_bytes = 0
    for span in scanner.scan(extents):
        same.append(_as_runs(span, SAME))
        changed.append(_as_runs(span, CHANGED))
        scanner.release(span)
        read_bytes += span.read_bytes
        progress.advance(span.read_bytes)
    _check_size(source, manifest)
    expected = content.runs[content.runs["slot"] >= FIRST_SLOT].copy()
    expected["slot"] = ZERO
    missing = subtract_runs(expected, overlay_runs(join_runs(same), empty_runs()))
    differing = overlay_runs(missing, join_runs(changed))
    starts = (differing["first_block"] * np.uint64(block)).tolist()
    ends = (end_blocks(differing) * np.uint64(block)).tolist()
    extents_found = tuple((start, min(end, manifest.size_bytes)) for start, end in zip(starts, ends, strict=True))
    return ComparedImage(manifest, read_bytes, extents_found, round(time.monotonic() - started, 3))


def _as_runs(span: ScannedSpan, status: BlockStatus) -> Runs:
    """Return the blocks of a span that have one status, as runs that tell nothing but where they are."""
    chosen = span.statuses[span.statuses["status"] == status]
    runs = np.empty(len(chosen), RUN)
    runs["first_block"] = chosen["first"].astype(np.uint64) + np.uint64(span.first_block)
    runs["count"], runs["slot"] = chosen["count"], ZERO
    return runs


def _check_size(source: Source, manifest: Manifest) -> None:
    if source.size_bytes != manifest.size_bytes:
        raise SizeMismatch(
            source.path, f"has {source.size_bytes} bytes; snapshot {manifest.label} has {manifest.size_bytes}"
        )
