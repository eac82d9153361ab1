# SPDX-License-Identifier: Apache-2.0
"""Make a snapshot self-contained: the delta records that it needs, or only those above a depth, are stored again as literals.

A record that is encoded again keeps its id, which names its content, so that maps and manifests stay as they are; the index
finds a literal record first, and a prune deletes the delta. After an interruption it is run again, and keeps what was stored.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.arrays import expand_ranges
from deltaimg.engine.content.resolved import load_resolved
from deltaimg.engine.pipeline import count_workers
from deltaimg.engine.progress import NoProgress, Progress, stage
from deltaimg.engine.recode import RecodedPart, recode_records
from deltaimg.errors import LockLost, StoreError, UsageError
from deltaimg.format.limits import MAX_DELTA_DEPTH
from deltaimg.format.manifest import Manifest
from deltaimg.ids import EntryNumber, EntryNumbers, RecordNumbers
from deltaimg.repo.index import LoadedIndex, load_index
from deltaimg.repo.lock import ImageLock
from deltaimg.repo.pack_writer import PackWriter
from deltaimg.repo.repository import Repository, SnapshotRef
from deltaimg.repo.slots import SlotTable
from deltaimg.repo.snapshots import load_snapshot


class FlattenResult(Struct, frozen=True):
    """The result for one snapshot."""

    manifest: Manifest
    recoded_records: int
    written_bytes: int
    duration_s: float


def flatten(
    repository: Repository,
    ref: SnapshotRef,
    *,
    max_depth: int = 0,
    progress: Progress | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    workers: int | None = None,
) -> FlattenResult:
    """Flatten one snapshot. Its content and all other snapshots are unchanged; nothing is written for one that is flat already.

    Args:
        max_depth: the maximum delta chain depth of the snapshot's records; 0: none of them is a delta.

    Raises:
        UsageError: no such depth. RepositoryLocked: another process works on the image. LockLost: its lock was removed.
        SnapshotError, IntegrityError, StoreError: the snapshot cannot be read, or its records not stored.
    """
    if not 0 <= max_depth <= MAX_DELTA_DEPTH:
        raise UsageError(f"deltas {max_depth} deep: it must be 0 to {MAX_DELTA_DEPTH}")
    progress, started = progress or NoProgress(), time.monotonic()
    with ImageLock(repository, ref.image, f"flatten of {ref.label}", clock()) as lock:
        with stage(progress, f"loading {ref.label}"):
            manifest = load_snapshot(repository, ref).manifest
            table = SlotTable(repository, load_index(repository))
            runs = load_resolved(repository, manifest, table).map.runs
            deep = _find_deep(table, table.used_records(runs), max_depth)
        written = _recode(repository, table, deep, progress, clock, lock.check, workers or count_workers())
        lock.check()
    return FlattenResult(manifest, len(deep), written, time.monotonic() - started)


def _find_deep(table: SlotTable, used: RecordNumbers, max_depth: int) -> RecordNumbers:
    """Return which records must be literal so that none of `used` is deeper than `max_depth`, the shallowest first."""
    index: LoadedIndex = table.index
    links = index.links
    needed = used if max_depth == 0 else table.add_sources(used)
    entries = table.entries[needed]
    order = np.argsort(table.depths_of(needed), kind="stable")
    depths = np.zeros(len(index), np.int64)
    deep = []
    for record, entry in zip(needed[order].tolist(), entries[order].tolist(), strict=True):
        sources = links.entries[links.starts[entry] : links.starts[entry + 1]]
        if not len(sources):
            continue
        depths[entry] = 1 + int(depths[sources].max())
        if depths[entry] > max_depth:
            depths[entry] = 0
            deep.append(record)
    return RecordNumbers(np.array(deep, np.int64))


def _recode(
    repository: Repository,
    table: SlotTable,
    records: RecordNumbers,
    progress: Progress,
    clock: Callable[[], datetime],
    check_lock: Callable[[], None],
    workers: int,
) -> int:
    """Store records again as literals; return how many bytes that took."""
    if not len(records):
        return 0
    index = table.index
    now_us = index.order_after(clock)
    literals = _AsLiterals(index)
    with PackWriter(repository, now_us, check_lock=check_lock) as writer:
        with writer.index_if_interrupted(progress.warn, except_for=(StoreError, LockLost)):
            recode_records(repository, index, table.entries[records], literals, writer, progress, workers=workers)
        writer.finish()
    return writer.stored_bytes


class _AsLiterals:
    """Keeps all slots that a record has, and no sources."""

    def __init__(self, index: LoadedIndex) -> None:
        self._cuts = index.cuts

    def list_parts(self, entry: EntryNumber) -> tuple[RecodedPart]:
        runs, _ = self._cuts.runs_of(EntryNumbers(np.array([entry])))
        return (RecodedPart(expand_ranges(runs["first_slot"], runs["count"]), _accept_none),)


def _accept_none(entries: EntryNumbers, within: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    del within
    return np.zeros(len(entries), np.bool_)
