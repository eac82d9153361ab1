# SPDX-License-Identifier: Apache-2.0
"""A snapshot opened for reading: which records it needs, and which blocks each of them supplies.

Restore and verify walk the records in the order in which they lie in packs, each once; random reads fetch single ones.

Memory  24 bytes a run of the map cut at records, 16 bytes a slot of the records used.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import FIRST_SLOT, Runs, clip_runs, count_run_blocks
from deltaimg.engine.base import load_resolved
from deltaimg.engine.pipeline import OrderedPool, ThreadBuffer, count_workers
from deltaimg.errors import ContentDamaged, IntegrityError, ObjectNotFound, StoreError, UsageError
from deltaimg.format.limits import MAX_RECORD_BYTES
from deltaimg.format.manifest import Manifest
from deltaimg.model import MIB, DamagedExtent
from deltaimg.repo.index import Index, load_index
from deltaimg.repo.record_reader import ReadGroup, RecordReader, group_reads
from deltaimg.repo.repository import Repository
from deltaimg.repo.slots import SlotTable, renumber_runs

CACHE_BYTES = 64 * MIB


@dataclass(frozen=True, slots=True)
class Placement:
    """Where part of a record's content belongs: bytes of it, and the offset in the image."""

    image_offset: int
    content: memoryview


@dataclass(frozen=True, slots=True)
class WalkedGroup:
    """What became of a group of records: bytes of the image supplied, and extents that could not be."""

    supplied_bytes: int
    damage: tuple[DamagedExtent, ...] = ()
    damaged_records: tuple[tuple[int, str], ...] = ()
    """Record number and reason."""


class SnapshotContent:
    """A snapshot, resolved and its digests proven against its root; raises as `load_resolved`."""

    def __init__(self, repository: Repository, manifest: Manifest, index: Index | None = None) -> None:
        self.manifest = manifest
        self.table = SlotTable(repository, index or load_index(repository))
        self.resolved = load_resolved(repository, manifest, self.table)
        self.runs = self.resolved.map.runs
        self._reader = RecordReader(repository, self.table)
        self._scratch = ThreadBuffer()
        self._block_bytes = manifest.block_bytes
        self._cut = self._cut_at_records()
        self._records = self.table.used_records(self.runs)
        owners = self.table.records_of(self._cut["slot"])
        self._cut_starts = np.searchsorted(owners, self._records, side="left")
        self._cut_ends = np.searchsorted(owners, self._records, side="right")

    @property
    def data_bytes(self) -> int:
        """How many bytes of the image are neither hole nor zero, in whole blocks."""
        return count_run_blocks(self._cut) * self._block_bytes

    def bytes_of(self, records: npt.NDArray[np.int64]) -> int:
        """Return how many bytes of the image `records` supply."""
        ends = np.concatenate((np.zeros(1, np.int64), np.cumsum(self._cut["count"], dtype=np.int64)))
        places = np.searchsorted(self._records, records)
        return int((ends[self._cut_ends[places]] - ends[self._cut_starts[places]]).sum()) * self._block_bytes

    @property
    def records(self) -> npt.NDArray[np.int64]:
        """The numbers of the records that the snapshot needs."""
        return self._records

    def read_groups(self, records: npt.NDArray[np.int64] | None = None) -> list[ReadGroup]:
        """Return the requests that bring `records`, or all that the snapshot needs."""
        return list(group_reads(self.table, self._records if records is None else records))

    def walk(
        self,
        groups: list[ReadGroup],
        place: Callable[[Placement], None] | None,
        *,
        keep_going: bool,
        workers: int | None = None,
    ) -> Iterator[WalkedGroup]:
        """Fetch, expand and prove groups on all cores; hand each block to `place`, from any thread.

        Raises:
            IntegrityError, ObjectNotFound: as soon as one is met, unless `keep_going`: then it is reported in the result.
        """

        def handle(group: ReadGroup) -> WalkedGroup:
            return self._walk_group(group, place, keep_going=keep_going)

        with OrderedPool(handle, workers=workers, window=2 * (workers or count_workers())) as pool:
            yield from pool.map(groups)

    def zero_extents(self) -> Iterator[tuple[int, int]]:
        """Yield [start, end) in bytes of everything that reads as zeros, ascending, joined."""
        empty = self.runs[self.runs["slot"] < FIRST_SLOT]
        open_start = open_end = 0
        for first, count in zip(empty["first_block"].tolist(), empty["count"].tolist(), strict=True):
            start = first * self._block_bytes
            if start != open_end:
                if open_end > open_start:
                    yield open_start, open_end
                open_start = start
            open_end = min(start + count * self._block_bytes, self.manifest.size_bytes)
        if open_end > open_start:
            yield open_start, open_end

    def extents_of(self, record: int) -> list[tuple[int, int]]:
        """Return [start, end) in bytes of the image for each stretch that a record supplies."""
        size = self.manifest.size_bytes
        return [(start, min(start + length, size)) for start, length, _ in self._pieces(record)]

    # -- random reads ------------------------------------------------------------------------------------------------

    def make_reader(self, cache_bytes: int = CACHE_BYTES) -> SnapshotReader:
        """Return a reader for any offset, with a cache of expanded records."""
        return SnapshotReader(self, self._reader, cache_bytes)

    # -- parts -------------------------------------------------------------------------------------------------------

    def _cut_at_records(self) -> Runs:
        """Return the data runs, none across two records, in order of slot: so each record's stand together."""
        data = self.runs[self.runs["slot"] >= FIRST_SLOT]
        table = self.table
        cut = renumber_runs(data, table.first_slots, table.slot_counts, table.first_slots)
        return cut[np.argsort(cut["slot"], kind="stable")]

    def _pieces(self, record: int) -> Iterator[tuple[int, int, int]]:
        """Yield (image offset, length, offset in the record) for each stretch that a record supplies."""
        place = int(np.searchsorted(self._records, record))
        runs = self._cut[self._cut_starts[place] : self._cut_ends[place]]
        first_slot = int(self.table.first_slots[record])
        block = self._block_bytes
        for first, count, slot in runs.tolist():
            yield first * block, count * block, (slot - first_slot) * block

    def _walk_group(
        self, group: ReadGroup, place: Callable[[Placement], None] | None, *, keep_going: bool
    ) -> WalkedGroup:
        supplied = 0
        damaged: list[tuple[int, str]] = []
        try:
            fetched = self._reader.fetch(group)
        except StoreError as error:
            if not keep_going:
                raise
            return self._report(0, [(record, str(error)) for record in group.records.tolist()])
        for record in group.records.tolist():
            try:
                content = self._reader.expand(record, group, fetched, self._scratch.get(MAX_RECORD_BYTES))
            except IntegrityError as error:
                if not keep_going:
                    raise
                damaged.append((record, str(error)))
                continue
            for offset, length, within in self._pieces(record):
                supplied += length
                if place is not None:
                    kept = min(length, self.manifest.size_bytes - offset)
                    place(Placement(offset, content[within : within + kept]))
        return self._report(supplied, damaged)

    def _report(self, supplied_bytes: int, damaged: list[tuple[int, str]]) -> WalkedGroup:
        damage = [DamagedExtent(*extent, reason) for record, reason in damaged for extent in self.extents_of(record)]
        return WalkedGroup(supplied_bytes, tuple(damage), tuple(damaged))


class SnapshotReader:
    """Reads a snapshot at any offset; any number of threads may use one."""

    def __init__(self, content: SnapshotContent, reader: RecordReader, cache_bytes: int) -> None:
        self._content, self._reader = content, reader
        self._cache: OrderedDict[int, memoryview] = OrderedDict()
        self._cache_bytes, self._cached_bytes = cache_bytes, 0
        self._lock = threading.Lock()

    @property
    def size_bytes(self) -> int:
        return self._content.manifest.size_bytes

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`, fewer only at the end of the image; every block is proven.

        Raises:
            UsageError: a negative offset or length. IntegrityError, StoreError: what is asked for cannot be read.
        """
        if offset < 0 or length < 0:
            raise UsageError(f"cannot read {length} bytes at {offset}")
        end = min(offset + length, self.size_bytes)
        if end <= offset:
            return b""
        block = self._content.manifest.block_bytes
        first, last = offset // block, -(-end // block)
        buffer = bytearray((last - first) * block)
        table = self._content.table
        clipped = clip_runs(self._content.runs, first, last)
        data = clipped[clipped["slot"] >= FIRST_SLOT]
        for piece in renumber_runs(data, table.first_slots, table.slot_counts, table.first_slots).tolist():
            first_block, count, slot = piece
            record = int(table.records_of(np.array([slot]))[0])
            content = self._expand(record)
            within = (slot - int(table.first_slots[record])) * block
            start = (first_block - first) * block
            buffer[start : start + count * block] = content[within : within + count * block]
        return bytes(memoryview(buffer)[offset - first * block : end - first * block])

    def _expand(self, record: int) -> memoryview:
        with self._lock:
            if record in self._cache:
                self._cache.move_to_end(record)
                return self._cache[record]
        try:
            content = self._reader.read(record)
        except (IntegrityError, ObjectNotFound) as error:
            start, end = self._content.extents_of(record)[0]
            raise ContentDamaged(self._content.manifest.label, ((start, end, str(error)),)) from error
        with self._lock:
            if record not in self._cache:
                self._cache[record] = content
                self._cached_bytes += len(content)
            while self._cached_bytes > self._cache_bytes and len(self._cache) > 1:
                self._cached_bytes -= len(self._cache.popitem(last=False)[1])
        return content
