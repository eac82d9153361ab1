# SPDX-License-Identifier: Apache-2.0
"""Prove that snapshots can be restored, without writing an image; or that an image still is what a snapshot holds."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import FIRST_SLOT, RUN, ZERO, Runs, empty_runs, end_blocks, join_runs
from deltaimg.engine.content import SnapshotContent
from deltaimg.engine.progress import NoProgress, Progress
from deltaimg.engine.scan import ScannedSpan, Scanner, round_extents
from deltaimg.errors import IntegrityError, ObjectNotFound, SizeMismatch, SnapshotError
from deltaimg.format.manifest import Manifest
from deltaimg.image.source import Source
from deltaimg.kernels import CHANGED, SAME, BlockStatus, overlay_runs, subtract_runs
from deltaimg.model import DamagedExtent
from deltaimg.repo.index import load_index
from deltaimg.repo.lock import ReaderLock
from deltaimg.repo.repository import Repository, SnapshotRef


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """What was proven of one snapshot: records and bytes of its content, and the extents that are damaged."""

    ref: SnapshotRef
    records: int
    records_total: int
    verified_bytes: int
    duration_s: float
    damage: tuple[DamagedExtent, ...]


def verify(
    repository: Repository,
    refs: Iterable[SnapshotRef],
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

    A snapshot whose manifest, map or digests are damaged is damaged as a whole; the others are verified all the same.
    """
    with ReaderLock(repository, "verify", datetime.now(UTC)):
        verifier = _Verifier(repository, percent, random.Random(seed), progress or NoProgress(), workers)
        return [verifier.verify(ref) for ref in refs]


class _Verifier:
    """Remembers over several snapshots which records were read, and which of those are damaged."""

    def __init__(
        self, repository: Repository, percent: float, chance: random.Random, progress: Progress, workers: int | None
    ) -> None:
        self._repository, self._percent, self._chance = repository, percent, chance
        self._progress, self._workers = progress, workers
        self._index = load_index(repository)
        self._is_read = np.zeros(len(self._index), np.bool_)
        self._damaged: dict[int, str] = {}

    def verify(self, ref: SnapshotRef) -> VerifyResult:
        started = time.monotonic()
        self._progress.start(f"planning {ref.label}", None)
        size_bytes = 0
        try:
            manifest = self._repository.load_manifest(ref)
            size_bytes = manifest.size_bytes
            content = SnapshotContent(self._repository, manifest, self._index)
        except (SnapshotError, IntegrityError, ObjectNotFound) as error:
            return VerifyResult(ref, 0, 0, 0, _since(started), (DamagedExtent(0, size_bytes, str(error)),))
        records = content.records
        wanted = math.ceil(len(records) * self._percent / 100)
        chosen = records[np.sort(np.array(self._chance.sample(range(len(records)), wanted), np.int64))]
        damage = self._read(ref, content, chosen)
        verified = content.bytes_of(chosen)
        return VerifyResult(ref, len(chosen), len(records), verified, _since(started), tuple(damage))

    def _read(self, ref: SnapshotRef, content: SnapshotContent, chosen: npt.NDArray[np.int64]) -> list[DamagedExtent]:
        """Read those of the chosen records that were not read before; return all damage among the chosen."""
        entries = content.table.entries
        fresh = chosen[~self._is_read[entries[chosen]]]
        self._progress.start(f"verifying {ref.label}", content.bytes_of(fresh))
        for walked in content.walk(content.plan(fresh), None, keep_going=True, workers=self._workers):
            self._progress.advance(walked.supplied_bytes)
            self._damaged.update({int(entries[record]): reason for record, reason in walked.damaged_records})
        self._is_read[entries[chosen]] = True
        damage = [
            DamagedExtent(*extent, self._damaged[entry])
            for record, entry in zip(chosen.tolist(), entries[chosen].tolist(), strict=True)
            if entry in self._damaged
            for extent in content.extents_of(record)
        ]
        return sorted(damage, key=lambda extent: extent.start)


def _since(started: float) -> float:
    return round(time.monotonic() - started, 3)


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
    return ComparedImage(manifest, read_bytes, extents_found, _since(started))


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
