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
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from msgspec import Struct, field

from deltaimg.arrays import Digests, expand_ranges
from deltaimg.delta.registry import find_delta_decoder
from deltaimg.engine.cluster import Cluster
from deltaimg.engine.content.walk import RecordWalk, WalkedRecords, take_blocks
from deltaimg.engine.pipeline import ThreadBuffer
from deltaimg.errors import IntegrityError, StoreError
from deltaimg.format.limits import MAX_RECORD_BYTES
from deltaimg.format.slot_runs import SlotRuns
from deltaimg.ids import RecordNumber, RecordNumbers, SlotNumbers
from deltaimg.model import MIB
from deltaimg.repo.record_reader import ReadGroup, RecordReader
from deltaimg.repo.reopen import RepositoryPlace
from deltaimg.repo.slots import SlotTable

_READ_BYTES = 32 * MIB
"""What one job reads, about: a pack."""
_SOURCE_BYTES = 64 * MIB
"""What is sent along with a job of blocks that its deltas are encoded against, about."""


class DeltaSources(Struct):
    """What a delta record is encoded against."""

    count: int
    table: bytes
    """Of these records, which it begins with."""
    content: bytes | None = None
    lost: str | None = None
    """Why the content cannot be read."""


class JobRead(Struct):
    """One read of a pack, and what a worker must know of the records in it; a row for each, in columns, which travel fast."""

    pack: str
    start: int
    end: int
    numbers: RecordNumbers
    """In the table of the walk."""
    rows: npt.NDArray[Any]
    """What the index says, of `ENTRY`."""
    is_loaded: npt.NDArray[np.bool_]
    """Whether the digests are."""
    digests: Digests
    """Of the slots of all records, one record after another."""
    kept_counts: npt.NDArray[np.int64]
    kept: npt.NDArray[np.int64]
    """Slots within their record whose content comes back, one record after another."""
    sources: dict[int, DeltaSources] = field(default_factory=dict)
    """Of the rows that are deltas."""
    present: dict[int, SlotRuns] = field(default_factory=dict)
    """The slots that it has, of each row that is a cut record."""


class WalkJob(Struct):
    """Reads of one pack or a few."""

    place: RepositoryPlace
    block_bytes: int
    reads: list[JobRead] = field(default_factory=list)
    read_bytes: int = 0
    source_bytes: int = 0


class WalkedJob(Struct, frozen=True):
    """For each read: records that were expanded, with the blocks that were asked for, and why others were not."""

    reads: list[tuple[list[tuple[RecordNumber, bytes]], list[tuple[RecordNumber, str]]]]


def walk_remotely(
    walk: RecordWalk, table: SlotTable, place: RepositoryPlace, cluster: Cluster, steps: Sequence[Sequence[ReadGroup]]
) -> Iterator[WalkedRecords[None]]:
    """Do as `RecordWalk.run` with `keep_going`, and without its `handle`; a step begins when the last has ended."""
    for step in steps:
        maker = _JobMaker(walk, table, place)
        for done in cluster.map(walk_at, maker.make_jobs(step)):
            for expanded, damaged in done.reads:
                walk.note_lost(damaged)
                for record, blocks in expanded:
                    walk.spool.put_blocks(int(table.first_slots[record]), int(table.slot_counts[record]), blocks)
                numbers = tuple(record for record, _ in expanded)
                yield WalkedRecords(numbers, (None,) * len(numbers), tuple(damaged))


class _JobMaker:
    """Makes the jobs of a step; what their deltas need was expanded in the steps before."""

    def __init__(self, walk: RecordWalk, table: SlotTable, place: RepositoryPlace) -> None:
        self._walk, self._table, self._place = walk, table, place

    def make_jobs(self, step: Sequence[ReadGroup]) -> Iterator[WalkJob]:
        job = WalkJob(self._place, self._walk.block_bytes)
        for group in step:
            read = self._describe(group)
            job.reads.append(read)
            job.read_bytes += read.end - read.start
            job.source_bytes += sum(len(each.content or b"") for each in read.sources.values())
            if job.read_bytes >= _READ_BYTES or job.source_bytes >= _SOURCE_BYTES:
                yield job
                job = WalkJob(self._place, self._walk.block_bytes)
        if job.reads:
            yield job

    def _describe(self, group: ReadGroup) -> JobRead:
        table, kept_slots, records = self._table, self._walk.spool.slots, group.records
        firsts = table.first_slots[records].astype(np.int64)
        counts = table.slot_counts[records].astype(np.int64)
        low, high = np.searchsorted(kept_slots, firsts), np.searchsorted(kept_slots, firsts + counts)
        kept = kept_slots[expand_ranges(low, high - low)].astype(np.int64) - np.repeat(firsts, high - low)
        read = JobRead(
            group.pack,
            group.offset,
            group.end,
            records,
            table.index_rows(records),
            table.is_loaded[records],
            table.digests[expand_ranges(firsts, counts)],
            high - low,
            kept,
        )
        for row, record in enumerate(records.tolist()):
            count, source_table = table.describe_sources(record)
            if count:
                read.sources[row] = self._read_sources(record, DeltaSources(count, source_table))
            present = table.find_present(record)
            if present is not None:
                read.present[row] = present
        return read

    def _read_sources(self, record: RecordNumber, sources: DeltaSources) -> DeltaSources:
        try:
            sources.content = bytes(self._walk.read_sources(record))
        except ValueError as error:
            sources.lost = str(error)
        return sources


_SCRATCH = ThreadBuffer()
"""For the content of a record: fresh memory for each costs as much as what is done with it, as the kernel clears its pages."""


# -- on a worker -------------------------------------------------------------------------------------------------------


def walk_at(job: WalkJob) -> WalkedJob:
    """Read, expand and verify the records of a job."""
    repository = job.place.open()
    scratch = _SCRATCH.get(MAX_RECORD_BYTES)
    reads: list[tuple[list[tuple[RecordNumber, bytes]], list[tuple[RecordNumber, str]]]] = []
    for read in job.reads:
        table = _JobTable(read)
        reader = RecordReader(repository, cast("SlotTable", table), find_delta_decoder)
        numbers = read.numbers.tolist()
        group = ReadGroup(read.pack, read.start, read.end, RecordNumbers(np.arange(len(numbers), dtype=np.int64)))
        kept_ends = np.cumsum(read.kept_counts).tolist()
        expanded: list[tuple[RecordNumber, bytes]] = []
        damaged: list[tuple[RecordNumber, str]] = []
        try:
            fetched = reader.fetch(group)
        except StoreError as error:
            reads.append(([], [(number, str(error)) for number in numbers]))
            continue
        for row, (number, kept_end) in enumerate(zip(numbers, kept_ends, strict=True)):
            try:
                content = reader.expand(RecordNumber(row), group, fetched, table.read_sources, scratch)
            except IntegrityError as error:
                damaged.append((number, str(error)))
                continue
            kept = read.kept[kept_end - int(read.kept_counts[row]) : kept_end]
            expanded.append((number, bytes(take_blocks(content, kept, job.block_bytes)) if len(kept) else b""))
        reads.append((expanded, damaged))
    return WalkedJob(reads)


class _JobTable:
    """What `RecordReader.expand` asks of a table, for the records of one read, numbered from 0."""

    def __init__(self, read: JobRead) -> None:
        self._read = read
        slots = read.rows["slots"].astype(np.int64)
        self.first_slots = SlotNumbers(np.cumsum(slots) - slots)
        self.is_loaded, self.digests = read.is_loaded, read.digests

    def index_rows(self, records: RecordNumbers) -> npt.NDArray[Any]:
        rows: npt.NDArray[Any] = self._read.rows[records]
        return rows

    def find_present(self, record: RecordNumber) -> SlotRuns | None:
        return self._read.present.get(record)

    def describe_sources(self, record: RecordNumber) -> tuple[int, bytes]:
        found = self._read.sources.get(record)
        return (0, b"") if found is None else (found.count, found.table)

    def read_sources(self, record: RecordNumber) -> memoryview:
        found = self._read.sources[record]
        if found.content is None:
            raise ValueError(found.lost)
        return memoryview(found.content)
