# SPDX-License-Identifier: Apache-2.0
"""A snapshot opened for reading: which records it needs, and which blocks each of them supplies.

Restore and verify walk the records in the order in which they lie in packs, each once; random reads fetch single ones.
Records that stand alone come first, then deltas, those that stand on other deltas last. Most sources of a delta are blocks that
the snapshot holds too: a restore reads them back from what it has just written; only the others are kept apart.

Memory  24 bytes a run of the map cut at records, 16 bytes a slot of the records used, 8 bytes a block kept for deltas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import FIRST_SLOT, RANGE, Ranges, Runs, count_run_blocks, distinct, expand_ranges
from deltaimg.delta.registry import find_delta_decoder
from deltaimg.engine.content.places import SlotPlaces
from deltaimg.engine.content.reader import SnapshotReader
from deltaimg.engine.content.record_cache import CACHE_BYTES, RecordCache
from deltaimg.engine.content.resolved import load_resolved
from deltaimg.engine.content.source_ranges import ReadBack, SourceReader
from deltaimg.engine.content.spool import Spool
from deltaimg.engine.pipeline import OrderedPool, ThreadBuffer, count_workers
from deltaimg.errors import IntegrityError, StoreError
from deltaimg.format.limits import MAX_RECORD_BYTES
from deltaimg.format.manifest import Manifest
from deltaimg.model import DamagedExtent
from deltaimg.repo.index import Index, load_index
from deltaimg.repo.numbering import renumber_runs
from deltaimg.repo.record_reader import ReadGroup, RecordReader, group_reads
from deltaimg.repo.repository import Repository
from deltaimg.repo.slots import SlotTable

_STANDS_ON = "is encoded against what cannot be read: "


@dataclass(frozen=True, slots=True)
class WalkPlan:
    """Which requests bring the records that are wanted, in steps: what a step needs was expanded in those before it."""

    steps: list[list[ReadGroup]]
    decoded_bytes: int
    """What all these records expand to, those that only others need included."""
    kept_slots: npt.NDArray[np.int64]
    """Slots that deltas need and that cannot be read back from the image, ascending."""

    @property
    def read_bytes(self) -> int:
        """What is read from packs."""
        return sum(group.end - group.offset for step in self.steps for group in step)


Place = Callable[[Ranges, memoryview], None]
"""Writes parts of a record's content to where they belong in the image."""


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
        self._reader = RecordReader(repository, self.table, find_delta_decoder)
        self._scratch = ThreadBuffer()
        self._places = SlotPlaces(self.runs)
        self._block_bytes = manifest.block_bytes
        self._records = self.table.used_records(self.runs)
        self._closure = self.table.add_sources(self._records)
        cut = self._cut_at_records()
        self.data_bytes = count_run_blocks(cut) * self._block_bytes
        """How many bytes of the image are neither hole nor zero, in whole blocks."""
        self._ranges = self._place_runs(cut)
        numbers = np.arange(self.table.record_count + 1)
        self._range_starts = np.searchsorted(self.table.records_of(cut["slot"]), numbers)
        """Ranges [range_starts[r], range_starts[r + 1]) are those of record r."""

    def bytes_of(self, records: npt.NDArray[np.int64]) -> int:
        """Return how many bytes of the image `records` supply."""
        firsts = self._range_starts[records]
        ranges = expand_ranges(firsts, self._range_starts[records + 1] - firsts)
        return int(self._ranges["length"][ranges].sum())

    @property
    def records(self) -> npt.NDArray[np.int64]:
        """The numbers of the records that the snapshot needs."""
        return self._records

    @property
    def closure(self) -> npt.NDArray[np.int64]:
        """The same, and those that only others are encoded against."""
        return self._closure

    def plan(self, records: npt.NDArray[np.int64] | None = None, *, can_read_back: bool = False) -> WalkPlan:
        """Plan a walk over `records`, or over all that the snapshot needs.

        Args:
            can_read_back: the walk will place each block of the image and can read it again.
        """
        table, links = self.table, self.table.index.links
        needed = self._closure if records is None else table.add_sources(records)
        entries = table.entries[needed]
        depths = links.depths[entries]
        steps = [list(group_reads(table, needed[depths == depth])) for depth in distinct(depths)]
        decoded = table.slot_counts[needed].sum() * self._block_bytes
        return WalkPlan(steps, int(decoded), self._find_kept(needed[depths > 0], can_read_back=can_read_back))

    def walk(
        self,
        plan: WalkPlan,
        place: Place | None,
        *,
        read_back: ReadBack | None = None,
        keep_going: bool,
        workers: int | None = None,
        spool_folder: str | None = None,
    ) -> Iterator[WalkedGroup]:
        """Fetch, expand and prove what was planned, on all cores; hand each record to `place`, from any thread.

        Args:
            read_back: as the plan was told.
            spool_folder: where sources that cannot be read back are kept, if they are many.

        Raises:
            IntegrityError, ObjectNotFound: as soon as one is met, unless `keep_going`: then it is reported in the result.
        """
        spool = Spool(plan.kept_slots, self._block_bytes, spool_folder)
        find_blocks = self._find_blocks if read_back else None
        sources = SourceReader(self.table, spool, self._block_bytes, find_blocks=find_blocks, read_back=read_back)
        try:
            yield from self._walk_steps(plan, place, sources, spool, keep_going=keep_going, workers=workers)
        finally:
            spool.close()

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
        return [(offset, offset + length) for offset, length, _ in self._ranges_of(record).tolist()]

    def dependents_of(self, record: int) -> list[int]:
        """Return which records of the snapshot cannot be expanded without `record`, itself among them if it is one."""
        links = self.table.index.links
        lost = {record}
        depths = links.depths[self.table.entries[self._closure]]
        for each in self._closure[np.argsort(depths, kind="stable")].tolist():
            first_slots, _ = self.table.source_slots(each)
            if lost.intersection(self.table.records_of(first_slots).tolist()):
                lost.add(each)
        return sorted(lost.intersection(self._records.tolist()))

    # -- random reads ------------------------------------------------------------------------------------------------

    def make_reader(self, cache_bytes: int = CACHE_BYTES) -> SnapshotReader:
        """Return a reader for any offset, with a cache of expanded records."""
        return SnapshotReader(self, RecordCache(self._reader, self.table, self._block_bytes, cache_bytes))

    @contextmanager
    def open_in_order(self, *, workers: int | None = None) -> Iterator[SnapshotReader]:
        """Return a reader for all of the snapshot from its start to its end.

        What its deltas need is expanded first and kept, so that reading on never has to expand a chain of them again.
        """
        spool = Spool(self.plan().kept_slots, self._block_bytes)
        sources = SourceReader(self.table, spool, self._block_bytes)
        lost: dict[int, str] = {}

        def read_sources(record: int) -> memoryview:
            self._refuse_lost(record, lost)
            return sources.read(record)

        try:
            if spool.size_bytes:
                plan = self.plan(distinct(self.table.records_of(spool.slots)))
                for walked in self._walk_steps(plan, None, sources, spool, keep_going=True, workers=workers):
                    lost.update(walked.damaged_records)
            yield SnapshotReader(self, RecordCache(self._reader, self.table, self._block_bytes, gather=read_sources))
        finally:
            spool.close()

    # -- parts -------------------------------------------------------------------------------------------------------

    def _cut_at_records(self) -> Runs:
        """Return the data runs, none across two records, in order of slot: so each record's stand together."""
        data = self.runs[self.runs["slot"] >= FIRST_SLOT]
        table = self.table
        cut = renumber_runs(data, table.first_slots, table.slot_counts, table.first_slots)
        return cut[np.argsort(cut["slot"], kind="stable")]

    def _place_runs(self, cut: Runs) -> Ranges:
        """Return which parts of their records runs bring to which places in the image."""
        firsts = self.table.first_slots[self.table.records_of(cut["slot"])]
        ranges = np.empty(len(cut), RANGE)
        ranges["offset"] = cut["first_block"] * self._block_bytes
        ranges["start"] = (cut["slot"] - firsts) * self._block_bytes
        lengths = cut["count"].astype(np.int64) * self._block_bytes
        ranges["length"] = np.minimum(lengths, self.manifest.size_bytes - ranges["offset"])
        return ranges

    def _ranges_of(self, record: int) -> Ranges:
        """Return which parts of a record stand where in the image."""
        return self._ranges[self._range_starts[record] : self._range_starts[record + 1]]

    def _find_kept(self, deltas: npt.NDArray[np.int64], *, can_read_back: bool) -> npt.NDArray[np.int64]:
        """Return the slots that `deltas` are encoded against, but for those that can be read back from the image."""
        slots = distinct(expand_ranges(*self.table.source_slots(deltas)))
        return slots[self._find_blocks(slots) < 0] if can_read_back else slots

    def _find_blocks(self, slots: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the block of the image that holds each slot whole, -1 for none."""
        blocks = self._places.find(slots)
        return np.where((blocks + 1) * self._block_bytes <= self.manifest.size_bytes, blocks, -1)

    def _refuse_lost(self, record: int, lost: dict[int, str]) -> None:
        """Raise ValueError if a record stands on one that cannot be expanded."""
        if not lost:
            return
        firsts, _ = self.table.source_slots(record)
        for source in self.table.records_of(firsts).tolist():
            if source in lost:
                # Of a chain, what is at its bottom is told, not each link.
                raise ValueError(f"{_STANDS_ON}{lost[source].rsplit(_STANDS_ON, 1)[-1]}")

    def _walk_steps(
        self,
        plan: WalkPlan,
        place: Place | None,
        sources: SourceReader,
        spool: Spool,
        *,
        keep_going: bool,
        workers: int | None,
    ) -> Iterator[WalkedGroup]:
        """Walk step by step; what a step could not expand those after it do without."""
        lost: dict[int, str] = {}

        def handle(group: ReadGroup) -> WalkedGroup:
            return self._walk_group(group, place, sources, spool, lost, keep_going=keep_going)

        with OrderedPool(workers=workers, window=2 * (workers or count_workers())) as pool:
            for step in plan.steps:
                for walked in pool.map(handle, step):
                    lost.update(walked.damaged_records)
                    yield walked

    def _walk_group(
        self,
        group: ReadGroup,
        place: Place | None,
        sources: SourceReader,
        spool: Spool,
        lost: dict[int, str],
        *,
        keep_going: bool,
    ) -> WalkedGroup:
        located = sources.locate(group.records)

        def read_sources(record: int) -> memoryview:
            self._refuse_lost(record, lost)
            return located(record)

        supplied: list[int] = []
        damaged: list[tuple[int, str]] = []
        try:
            fetched = self._reader.fetch(group)
        except StoreError as error:
            if not keep_going:
                raise
            return self._report([], [(record, str(error)) for record in group.records.tolist()])
        for record in group.records.tolist():
            try:
                content = self._reader.expand(record, group, fetched, read_sources, self._scratch.get(MAX_RECORD_BYTES))
            except IntegrityError as error:
                if not keep_going:
                    raise
                damaged.append((record, str(error)))
                continue
            spool.put(int(self.table.first_slots[record]), content)
            supplied.append(record)
            if place is not None:
                place(self._ranges_of(record), content)
        return self._report(supplied, damaged)

    def _report(self, supplied: list[int], damaged: list[tuple[int, str]]) -> WalkedGroup:
        damage = [DamagedExtent(*extent, reason) for record, reason in damaged for extent in self.extents_of(record)]
        return WalkedGroup(self.bytes_of(np.array(supplied, np.int64)), tuple(damage), tuple(damaged))
