# SPDX-License-Identifier: Apache-2.0
"""Expand many records, each once, on all cores, deltas after their sources (`walk_plan.py`).

Blocks that deltas need are kept in a spool from when their own record was expanded, but for those that can be read back from
what the walk has written. So what a walk costs grows with the records that it meets, not with how often deltas refer to them.

Memory  of `Spool`; for each thread a record, its sources and what was fetched; over a network 20 MiB fetched in advance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.engine.content.source_ranges import ReadBack, SourceReader
from deltaimg.engine.content.spool import KeptSlots, Spool
from deltaimg.engine.content.walk_plan import FindBlocks
from deltaimg.engine.pipeline import OrderedPool, ThreadBuffer, count_workers
from deltaimg.errors import IntegrityError, StoreError
from deltaimg.format.limits import MAX_RECORD_BYTES
from deltaimg.ids import RecordNumber, RecordNumbers
from deltaimg.repo.pack_reader import is_bad_sector
from deltaimg.repo.record_reader import ReadGroup, RecordReader, group_reads
from deltaimg.repo.slots import SlotTable

_REQUESTS = 8
"""Over a network, so many requests of 2 MiB are under way: at 50 ms a round trip they fill a line of 2 Gbit/s."""

Result = TypeVar("Result")


def count_requests(reader: RecordReader) -> int:
    """Return how many requests for records are to be under way at once: one where the store is on this host."""
    return min(_REQUESTS, reader.parallel_requests)


class WalkedRecords(Struct, Generic[Result], frozen=True):
    """The result of a group of records: what `place` returned for each that was expanded, and why the others were not."""

    records: tuple[RecordNumber, ...]
    results: tuple[Result, ...]
    damaged: tuple[tuple[RecordNumber, str], ...]


class _Fetched(Struct, frozen=True):
    """A group of records, and its bytes, or why there are none."""

    group: ReadGroup
    content: memoryview | StoreError


ReadSources = Callable[[RecordNumber], memoryview]
"""Returns the blocks that a delta record is encoded against, in memory that the thread's next call takes again."""
Handle = Callable[[RecordNumber, memoryview, ReadSources], Result]
"""Called from any thread with a record and its content, which lies in memory of the thread."""


class RecordWalk:
    """One walk, and the spool of the blocks that it keeps. Close it in the end."""

    def __init__(
        self,
        reader: RecordReader,
        table: SlotTable,
        block_bytes: int,
        kept: KeptSlots,
        *,
        find_blocks: FindBlocks | None = None,
        read_back: ReadBack | None = None,
        spool_folder: str | None = None,
    ) -> None:
        """Args: find_blocks, read_back: both or neither. spool_folder: for kept blocks, if they are many."""
        self._reader, self._table = reader, table
        self.block_bytes = block_bytes
        self.spool = Spool(kept, block_bytes, spool_folder)
        self._sources = SourceReader(table, self.spool, block_bytes, find_blocks=find_blocks, read_back=read_back)
        self._scratch = ThreadBuffer()
        self.lost: dict[RecordNumber, str] = {}
        """Records that could not be expanded, and why not those at the bottom of their chains."""

    def close(self) -> None:
        """Forget what was kept."""
        self.spool.close()

    def run(
        self,
        steps: Sequence[Sequence[ReadGroup]],
        handle: Handle[Result],
        *,
        keep_going: bool,
        workers: int | None = None,
    ) -> Iterator[WalkedRecords[Result]]:
        """Fetch, expand and verify, step by step; what a step could not expand those after it do without.

        Raises:
            IntegrityError, StoreError: as soon as one is met, unless `keep_going`: then it is reported in the result.
        """

        def walk(fetched: _Fetched) -> WalkedRecords[Result]:
            return self._walk_group(fetched, handle, keep_going=keep_going)

        def fetch_and_walk(group: ReadGroup) -> WalkedRecords[Result]:
            return walk(self._fetch(group))

        workers = workers or count_workers()
        requests = count_requests(self._reader)
        with (
            OrderedPool(workers=requests, only_reads=True) as fetching,
            OrderedPool(workers=workers, window=2 * workers) as pool,
        ):
            # Requests go on while a step ends: over a network, each of these would cost a round trip.
            fetched = fetching.map(self._fetch, chain.from_iterable(steps)) if requests > 1 else None
            for step in steps:
                for walked in (
                    pool.map(fetch_and_walk, step) if fetched is None else pool.map(walk, islice(fetched, len(step)))
                ):
                    self.note_lost(walked.damaged)
                    yield walked

    def note_lost(self, damaged: Iterable[tuple[RecordNumber, str]]) -> None:
        """Remember what a step could not expand."""
        for record, reason in damaged:
            self.lost[record] = next(self._find_lost_sources(record), reason)

    def read_sources(self, record: RecordNumber) -> memoryview:
        """Return what a delta record is encoded against, in memory of its own; raises ValueError if that is lost."""
        self._refuse_lost(record)
        return self._sources.read(record)

    def _fetch(self, group: ReadGroup) -> _Fetched:
        try:
            return _Fetched(group, self._reader.fetch(group))
        except StoreError as error:
            return _Fetched(group, error)

    def _walk_group(self, fetched: _Fetched, handle: Handle[Result], *, keep_going: bool) -> WalkedRecords[Result]:
        group, content = fetched.group, fetched.content
        located = self._sources.locate(group.records)

        def read_sources(record: RecordNumber) -> memoryview:
            self._refuse_lost(record)
            return located(record)

        if isinstance(content, StoreError):
            if not keep_going:
                raise content
            if is_bad_sector(content) and len(group.records) > 1:
                return self._walk_one_by_one(group, handle)
            return WalkedRecords((), (), tuple((record, str(content)) for record in group.records.tolist()))
        done: dict[RecordNumber, Result] = {}
        damaged: list[tuple[RecordNumber, str]] = []
        for record in group.records.tolist():
            try:
                scratch = self._scratch.get(MAX_RECORD_BYTES)
                expanded = self._reader.expand(record, group, content, read_sources, scratch)
            except IntegrityError as error:
                if not keep_going:
                    raise
                damaged.append((record, str(error)))
                continue
            self.spool.put(int(self._table.first_slots[record]), expanded)
            done[record] = handle(record, expanded, read_sources)
        return WalkedRecords(tuple(done), tuple(done.values()), tuple(damaged))

    def _walk_one_by_one(self, group: ReadGroup, handle: Handle[Result]) -> WalkedRecords[Result]:
        """Do as `_walk_group` with each record alone: a bad sector costs the one that lies on it, and not all of a request."""
        walked = [
            self._walk_group(self._fetch(alone), handle, keep_going=True)
            for record in group.records.tolist()
            for alone in group_reads(self._table, RecordNumbers(np.array([record])))
        ]
        return WalkedRecords(
            tuple(record for each in walked for record in each.records),
            tuple(result for each in walked for result in each.results),
            tuple(loss for each in walked for loss in each.damaged),
        )

    def _refuse_lost(self, record: RecordNumber) -> None:
        """Raise ValueError if a record depends on one that cannot be expanded."""
        for reason in self._find_lost_sources(record):
            raise ValueError(f"is encoded against what cannot be read: {reason}")

    def _find_lost_sources(self, record: RecordNumber) -> Iterator[str]:
        """Yield why each source record of a delta that is lost cannot be expanded."""
        if self.lost:
            firsts, _ = self._table.source_slots(record)
            yield from (self.lost[source] for source in self._table.records_of(firsts).tolist() if source in self.lost)


def take_blocks(content: memoryview, numbers: npt.NDArray[np.int64], block_bytes: int) -> memoryview:
    """Return some blocks of content, copied."""
    blocks = np.frombuffer(content, np.uint8).reshape(-1, block_bytes)
    return blocks[numbers].reshape(-1).data
