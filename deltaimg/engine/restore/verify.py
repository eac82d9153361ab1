# SPDX-License-Identifier: Apache-2.0
"""Verify that snapshots can be restored, without writing an image."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.arrays import distinct
from deltaimg.engine.cluster import Cluster
from deltaimg.engine.content.snapshot import SnapshotContent
from deltaimg.engine.progress import NoProgress, Progress, stage
from deltaimg.errors import (
    IntegrityError,
    ObjectNotFound,
    SnapshotError,
    SnapshotNotFound,
    StoreError,
    UnsupportedFormat,
    UsageError,
)
from deltaimg.ids import RecordNumbers
from deltaimg.model import MIB, DamagedExtent
from deltaimg.repo.index import load_index
from deltaimg.repo.lock import ReaderLock
from deltaimg.repo.repository import Repository, SnapshotRef
from deltaimg.repo.slots import SlotTable
from deltaimg.repo.snapshots import load_snapshot
from deltaimg.repo.verified_share import VerifiedShare, VerifiedSummary

_BATCH_BYTES = 128 * MIB
"""Snapshots are read together until their maps and digests take this much memory: what several need is expanded once then."""


class VerifyResult(Struct, frozen=True):
    """What was verified of one snapshot: records and bytes of its content, and the extents that are damaged."""

    ref: SnapshotRef
    records: int
    records_total: int
    verified_bytes: int
    duration_s: float
    damage: tuple[DamagedExtent, ...]


class VerifyReport(list[VerifyResult]):
    """A result for each snapshot, and what share of all content was ever verified."""

    def __init__(self, results: Iterable[VerifyResult], verified_share: VerifiedSummary) -> None:
        super().__init__(results)
        self.verified_share = verified_share


def verify(
    repository: Repository,
    refs: Iterable[SnapshotRef],
    *,
    percent: float = 100.0,
    progress: Progress | None = None,
    seed: int | None = None,
    workers: int | None = None,
    cluster: Cluster | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> VerifyReport:
    """Read and verify the content of snapshots, each record once however many of them need it.

    Args:
        percent: of the content, that which was verified longest ago, so that runs that add up to 100 verify everything. Where
            `refs` are not all snapshots, of the content of each; content verified at the same time is chosen by chance.
        seed: makes the choice repeatable.
        cluster: where records are read and decoded; on threads of this process, if not given.

    A snapshot whose manifest, map or digests are damaged is damaged as a whole, and so is one whose manifest is in quarantine;
    the others are verified nevertheless. One that is forgotten meanwhile has no result.

    Raises:
        LockLost: others considered this run dead, and something that it reads was deleted meanwhile.
        UsageError: a cluster is given, and the repository is encrypted.
    """
    if cluster is not None and repository.config.is_encrypted:
        problem = (
            "is encrypted, and its key is not given to the workers of a cluster, which would have to decode its records"
        )
        raise UsageError(f"{repository.objects.location}: {problem}", hint="run without --executor")
    progress = progress or NoProgress()
    with ReaderLock(repository, "verify", clock()) as lock:
        choice = _Choice(percent, random.Random(seed), clock())
        verifier = _Verifier(repository, lock, list(refs), choice, progress, _Where(workers, cluster))
        results = verifier.verify_all()
        with stage(progress, "recording what was verified"):
            return VerifyReport(results, verifier.keep_verified_share(clock()))


class _Where(Struct, frozen=True):
    """Where records are read and decoded: on so many threads of this process, or on a cluster."""

    workers: int | None
    cluster: Cluster | None


class _Choice(Struct, frozen=True):
    """How much is read, when, and what decides among what was verified at the same time."""

    percent: float
    chance: random.Random
    now: datetime


class _Opened(Struct, frozen=True):
    """A snapshot, and which of its records, sources included, are verified this time."""

    ref: SnapshotRef
    content: SnapshotContent
    chosen: RecordNumbers
    duration_s: float
    """That it took to find these."""


class _Verifier:
    """Verifies several snapshots; keeps which records were read, which of these are damaged, and which are needed at all."""

    def __init__(
        self,
        repository: Repository,
        lock: ReaderLock,
        refs: list[SnapshotRef],
        choice: _Choice,
        progress: Progress,
        where: _Where,
    ) -> None:
        self._repository, self._lock, self._refs, self._choice = repository, lock, refs, choice
        self._progress, self._where = progress, where
        self._index = load_index(repository)
        count = len(self._index)
        self._is_verified, self._is_expanded = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
        self._is_needed, self._is_source = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
        self._damaged: dict[int, str] = {}
        self._verified_share = VerifiedShare(repository, self._index)
        if self._verified_share.damage is not None:
            self._progress.warn(f"{self._verified_share.damage}; what was verified when is recorded from now on")
        self._turns = np.array([choice.chance.random() for _ in self._verified_share.stored_bytes])
        # Whether all needs of the repository are known at the end; otherwise records that only others need look unneeded.
        self._sees_all = set(refs) >= set(repository.list_snapshots())
        self._packs = np.zeros(len(self._verified_share.stored_bytes), np.bool_)
        if self._sees_all and choice.percent < 100:
            kept = distinct(self._verified_share.pack_of[~self._index.is_pending])
            self._packs[self._choose(kept)] = True

    def verify_all(self) -> list[VerifyResult]:
        """Return a result for each snapshot, but for those that are forgotten meanwhile."""
        results: dict[SnapshotRef, VerifyResult] = {}
        for batch in self._open_batches(results):
            durations = self._read(batch)
            for opened, duration_s in zip(batch, durations, strict=True):
                results[opened.ref] = self._conclude(opened, duration_s)
        return [results[ref] for ref in self._refs if ref in results]

    def _open_batches(self, results: dict[SnapshotRef, VerifyResult]) -> Iterator[list[_Opened]]:
        """Open the snapshots, image by image, of each the newest first, and yield those that are read together.

        Newer ones need most of what older ones do, so little is left to be read of those that have no room in the same batch.

        Args:
            results: those of snapshots that cannot be opened are added.
        """
        batch: list[_Opened] = []
        for ref in sorted(self._refs, reverse=True):
            table = batch[0].content.table if batch else SlotTable(self._repository, self._index)
            try:
                opened = self._open(ref, table)
            except SnapshotNotFound as error:
                self._lock.check()
                self._sees_all = False
                self._progress.warn(f"{error}: it was forgotten just now")
                continue
            if isinstance(opened, VerifyResult):
                results[ref] = opened
                continue
            if batch and opened.content.manifest.block_bytes != batch[0].content.manifest.block_bytes:
                yield batch
                batch = []
            batch.append(opened)
            if sum(each.content.memory_bytes for each in batch) + table.digests.nbytes > _BATCH_BYTES:
                yield batch
                batch = []
        if batch:
            yield batch

    def _open(self, ref: SnapshotRef, table: SlotTable) -> _Opened | VerifyResult:
        started = time.monotonic()
        size_bytes = 0
        try:
            with stage(self._progress, f"planning {ref.label}"):
                manifest = load_snapshot(self._repository, ref).manifest
                size_bytes = manifest.size_bytes
                content = SnapshotContent(self._repository, manifest, self._index, table)
        except SnapshotNotFound:
            raise
        except (SnapshotError, IntegrityError, ObjectNotFound, UnsupportedFormat) as error:
            self._lock.check()
            self._sees_all = False
            return VerifyResult(ref, 0, 0, 0, _since(started), (DamagedExtent(0, size_bytes, str(error)),))
        entries = table.entries
        self._is_needed[entries[content.records]] = True
        self._is_source[entries[content.closure]] = True
        return _Opened(ref, content, self._choose_records(content), _since(started))

    def _read(self, batch: Sequence[_Opened]) -> list[float]:
        """Read those of the chosen records that were not read before; return how long that took for each snapshot, about."""
        started, table = time.monotonic(), batch[0].content.table
        is_fresh = np.zeros(table.record_count, np.bool_)
        shares = []
        for each in batch:
            chosen, entries = each.chosen, table.entries[each.chosen]
            is_own = np.isin(chosen, each.content.records)
            is_open = ~np.where(is_own, self._is_verified[entries], self._is_expanded[entries]) & ~is_fresh[chosen]
            is_fresh[chosen[is_open]] = True
            shares.append(int(np.count_nonzero(is_open)))
        fresh = RecordNumbers(np.flatnonzero(is_fresh))
        # The last has a number for every record of the table.
        content, cluster = batch[-1].content, self._where.cluster
        plan = content.plan(fresh, in_few_steps=cluster is not None)
        task = f"verifying {batch[0].ref.label}" if len(batch) == 1 else f"verifying {len(batch)} snapshots"
        with stage(self._progress, task, plan.decoded_bytes):
            for walked in content.walk(plan, None, keep_going=True, workers=self._where.workers, cluster=cluster):
                self._progress.advance(walked.decoded_bytes)
                self._damaged.update({int(table.entries[number]): why for number, why in walked.damaged_records})
        if self._damaged:
            self._lock.check()
        for each in batch:
            self._is_verified[table.entries[np.intersect1d(each.chosen, each.content.records)]] = True
        self._is_expanded[table.entries[table.add_sources(fresh)]] = True
        duration_s = time.monotonic() - started
        return [duration_s * share / max(1, len(fresh)) for share in shares]

    def _conclude(self, opened: _Opened, read_s: float) -> VerifyResult:
        content, own = opened.content, RecordNumbers(np.intersect1d(opened.chosen, opened.content.records))
        return VerifyResult(
            opened.ref,
            len(own),
            len(content.records),
            content.bytes_of(own),
            round(opened.duration_s + read_s, 3),
            tuple(self._find_damage(content, opened.chosen)),
        )

    def _find_damage(self, content: SnapshotContent, chosen: RecordNumbers) -> list[DamagedExtent]:
        """Return all damage among the chosen."""
        entries = content.table.entries
        damaged = [record for record in chosen.tolist() if int(entries[record]) in self._damaged]
        # Where all is read, deltas that depend on a damaged record are among the damaged themselves.
        affected = dict.fromkeys(damaged) if self._choice.percent >= 100 else content.dependents_of(damaged)
        return sorted(
            DamagedExtent(each.start, each.end, self._damaged[int(entries[record if cause is None else cause])])
            for record, cause in affected.items()
            for each in content.extents_of(record)
        )

    def _choose_records(self, content: SnapshotContent) -> RecordNumbers:
        """Return the records of a snapshot, sources included, that are in the packs that are verified this time."""
        if self._choice.percent >= 100:
            return content.closure
        packs = self._verified_share.pack_of[content.table.entries[content.closure]]
        if not self._sees_all and not self._packs.any():
            return RecordNumbers(content.closure[np.isin(packs, self._choose(distinct(packs)))])
        return RecordNumbers(content.closure[self._packs[packs]])

    def _choose(self, packs: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        is_among = np.zeros(len(self._turns), np.bool_)
        is_among[packs] = True
        return self._verified_share.choose(self._choice.percent, is_among, self._turns, self._choice.now)

    def keep_verified_share(self, now: datetime) -> VerifiedSummary:
        """Record which packs were verified. A failure to write to the repository is a warning."""
        if self._sees_all:
            is_open = (self._is_needed & ~self._is_verified) | (self._is_source & ~self._is_needed & ~self._is_expanded)
        else:
            is_open = ~self._is_verified
        is_open[list(self._damaged)] = True
        has_open = np.zeros(len(self._turns), np.bool_)
        has_open[self._verified_share.pack_of[is_open]] = True
        self._verified_share.note(~has_open, now)
        try:
            self._verified_share.save()
        except StoreError as error:
            self._progress.warn(f"{error}; what was verified by this run is not recorded")
        return self._verified_share.summarise()


def _since(started: float) -> float:
    return round(time.monotonic() - started, 3)
