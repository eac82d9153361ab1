# SPDX-License-Identifier: Apache-2.0
"""A walk on the workers of a cluster: records are read, expanded and verified there, about a pack of them in a job.

A job says all that a worker has to know: where records lie, what the index and the signatures say of them, and the blocks that
deltas are encoded against. So a worker loads no index, each record is expanded once, and a job may run again where a worker
died. What later steps need of a record's content comes back with the result, and goes into the spool of the walk.

Memory  here, the jobs under way: for each the digests of its records and the sources of its deltas, up to `_SOURCE_BYTES`. On a
        worker, a read, a record and what comes back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import DIGEST_BYTES, Digests
from deltaimg.delta.registry import find_delta_decoder
from deltaimg.engine.cluster import Cluster
from deltaimg.engine.content.walk import RecordWalk, WalkedRecords, take_blocks
from deltaimg.errors import IntegrityError, StoreError
from deltaimg.format.slot_runs import SlotRuns
from deltaimg.ids import RecordNumber, RecordNumbers, SlotNumbers
from deltaimg.model import MIB
from deltaimg.repo.record_reader import ReadGroup, RecordReader
from deltaimg.repo.reopen import Place
from deltaimg.repo.slots import SlotTable

_READ_BYTES = 32 * MIB
"""What one job reads, about: a pack."""
_SOURCE_BYTES = 64 * MIB
"""What is sent along with a job of blocks that its deltas are encoded against, about."""


@dataclass(slots=True)
class JobRecord:
    """What a worker must know of one record."""

    number: RecordNumber
    """In the table of the walk."""
    row: npt.NDArray[Any]
    """What the index says of it: one entry of `ENTRY`."""
    digests: Digests | None
    """Of its slots; None where they were not loaded."""
    present: SlotRuns | None
    """The slots that it has, of a cut record."""
    source_count: int
    source_table: bytes
    kept: npt.NDArray[np.int64]
    """Slots of it whose content comes back."""
    sources: bytes | None = None
    """The blocks that it is encoded against."""
    lost: str | None = None
    """Why they cannot be read."""


@dataclass(slots=True)
class WalkJob:
    """Reads of one pack or a few, and the records in each."""

    place: Place
    block_bytes: int
    reads: list[tuple[str, int, int, list[JobRecord]]] = field(default_factory=list)
    """Pack, first byte, end."""
    read_bytes: int = 0
    source_bytes: int = 0


@dataclass(frozen=True, slots=True)
class WalkedJob:
    """For each read: records that were expanded, with the blocks that were asked for, and why others were not."""

    reads: list[tuple[list[tuple[RecordNumber, bytes]], list[tuple[RecordNumber, str]]]]


def walk_remotely(
    walk: RecordWalk, table: SlotTable, place: Place, cluster: Cluster, steps: Sequence[Sequence[ReadGroup]]
) -> Iterator[WalkedRecords[None]]:
    """Do as `RecordWalk.run` with `keep_going`, and without its `handle`; a step begins when the last has ended."""
    for step in steps:
        maker = _JobMaker(walk, table, place)
        for done in cluster.map(walk_at, maker.make_jobs(step)):
            for expanded, damaged in done.reads:
                walk.lost.update(damaged)
                for record, blocks in expanded:
                    walk.spool.put_blocks(int(table.first_slots[record]), int(table.slot_counts[record]), blocks)
                numbers = tuple(record for record, _ in expanded)
                yield WalkedRecords(numbers, (None,) * len(numbers), tuple(damaged))


class _JobMaker:
    """Makes the jobs of a step; what their deltas need was expanded in the steps before."""

    def __init__(self, walk: RecordWalk, table: SlotTable, place: Place) -> None:
        self._walk, self._table, self._place = walk, table, place

    def make_jobs(self, step: Sequence[ReadGroup]) -> Iterator[WalkJob]:
        job = WalkJob(self._place, self._walk.block_bytes)
        for group in step:
            records = [self._describe(record) for record in group.records.tolist()]
            job.reads.append((group.pack, group.offset, group.end, records))
            job.read_bytes += group.end - group.offset
            job.source_bytes += sum(len(record.sources or b"") for record in records)
            if job.read_bytes >= _READ_BYTES or job.source_bytes >= _SOURCE_BYTES:
                yield job
                job = WalkJob(self._place, self._walk.block_bytes)
        if job.reads:
            yield job

    def _describe(self, record: RecordNumber) -> JobRecord:
        table, walk = self._table, self._walk
        numbers = RecordNumbers(np.array([record], np.int64))
        first, count = int(table.first_slots[record]), int(table.slot_counts[record])
        source_count, source_table = table.describe_sources(record)
        low, high = np.searchsorted(walk.spool.slots, (first, first + count)).tolist()
        described = JobRecord(
            number=record,
            row=table.index_rows(numbers),
            digests=table.digests[first : first + count].copy() if table.is_loaded[record] else None,
            present=table.find_present(record),
            source_count=source_count,
            source_table=source_table,
            kept=np.asarray(walk.spool.slots[low:high], np.int64) - first,
        )
        if source_count:
            try:
                described.sources = bytes(walk.read_sources(record))
            except ValueError as error:
                described.lost = str(error)
        return described


# -- on a worker -------------------------------------------------------------------------------------------------------


def walk_at(job: WalkJob) -> WalkedJob:
    """Read, expand and verify the records of a job."""
    repository = job.place.open()
    reads: list[tuple[list[tuple[RecordNumber, bytes]], list[tuple[RecordNumber, str]]]] = []
    for pack, start, end, records in job.reads:
        table = _JobTable(records)
        reader = RecordReader(repository, cast("SlotTable", table), find_delta_decoder)
        group = ReadGroup(pack, start, end, RecordNumbers(np.arange(len(records), dtype=np.int64)))
        expanded: list[tuple[RecordNumber, bytes]] = []
        damaged: list[tuple[RecordNumber, str]] = []
        try:
            fetched = reader.fetch(group)
        except StoreError as error:
            reads.append(([], [(record.number, str(error)) for record in records]))
            continue
        for place, record in enumerate(records):
            try:
                content = reader.expand(RecordNumber(place), group, fetched, table.read_sources)
            except IntegrityError as error:
                damaged.append((record.number, str(error)))
                continue
            kept = bytes(take_blocks(content, record.kept, job.block_bytes)) if len(record.kept) else b""
            expanded.append((record.number, kept))
        reads.append((expanded, damaged))
    return WalkedJob(reads)


class _JobTable:
    """What `RecordReader.expand` asks of a table, for the records of one read, numbered from 0."""

    def __init__(self, records: Sequence[JobRecord]) -> None:
        self._records = records
        slots = np.array([int(record.row["slots"][0]) for record in records], np.int64)
        self.first_slots = SlotNumbers(np.cumsum(slots) - slots)
        self.is_loaded = np.array([record.digests is not None for record in records], np.bool_)
        nothing = [np.zeros((int(count), DIGEST_BYTES), np.uint8) for count in slots]
        parts = [
            each if record.digests is None else record.digests for record, each in zip(records, nothing, strict=True)
        ]
        self.digests: Digests = np.concatenate(parts)

    def index_rows(self, records: RecordNumbers) -> npt.NDArray[Any]:
        rows: npt.NDArray[Any] = np.concatenate([self._records[record].row for record in records.tolist()])
        return rows

    def find_present(self, record: RecordNumber) -> SlotRuns | None:
        return self._records[record].present

    def describe_sources(self, record: RecordNumber) -> tuple[int, bytes]:
        return self._records[record].source_count, self._records[record].source_table

    def read_sources(self, record: RecordNumber) -> memoryview:
        found = self._records[record]
        if found.sources is None:
            raise ValueError(found.lost)
        return memoryview(found.sources)
