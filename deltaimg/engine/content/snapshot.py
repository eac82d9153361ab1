# SPDX-License-Identifier: Apache-2.0
"""A snapshot opened for reading: which records it needs, and which blocks each of them supplies.

Restore and verify walk the records in the order in which they lie in packs, each once; random reads fetch single ones.
Literals come first, then deltas by ascending depth. Most sources of a delta are blocks that
the snapshot holds too: a restore reads them back from what it has just written; only the others are kept apart.

Memory  24 bytes a run of the map cut at records, 16 bytes a slot of the records used, 8 bytes a block kept for deltas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.arrays import FIRST_SLOT, RANGE, Ranges, Runs, count_run_blocks, distinct, expand_ranges
from deltaimg.delta.registry import find_delta_decoder
from deltaimg.engine.cluster import Cluster
from deltaimg.engine.content.reader import SnapshotReader
from deltaimg.engine.content.record_cache import CACHE_BYTES, RecordCache
from deltaimg.engine.content.remote_walk import walk_remotely
from deltaimg.engine.content.resolved import load_resolved
from deltaimg.engine.content.slot_lookup import SlotLookup
from deltaimg.engine.content.source_ranges import ReadBack
from deltaimg.engine.content.spool import KeptSlots, Spool, find_source_slots
from deltaimg.engine.content.walk import ReadSources, RecordWalk, WalkedRecords, count_requests
from deltaimg.engine.content.walk_plan import REGION_SOURCE_BYTES, REMOTE_SOURCE_BYTES, WalkPlan, plan_walk
from deltaimg.engine.progress import NoProgress, Progress, stage
from deltaimg.format.manifest import Manifest
from deltaimg.ids import BlockIndexes, RecordNumber, RecordNumbers, SlotNumbers
from deltaimg.model import DamagedExtent, Extent
from deltaimg.repo.index import LoadedIndex, load_index
from deltaimg.repo.lock import ReaderLock
from deltaimg.repo.record_reader import RecordReader
from deltaimg.repo.reopen import RepositoryPlace
from deltaimg.repo.repository import Repository
from deltaimg.repo.slots import SlotTable

_RUN_MEMORY_BYTES = 40

PlaceContent = Callable[[Ranges, memoryview], None]
"""Writes parts of a record's content to where they belong in the image."""


class WalkedGroup(Struct, frozen=True):
    """The result of a group of records: how much of the plan's `decoded_bytes` it was, and extents that could not be read."""

    decoded_bytes: int
    damage: tuple[DamagedExtent, ...] = ()
    damaged_records: tuple[tuple[RecordNumber, str], ...] = ()
    """Record number and reason."""


class SnapshotContent:
    """A snapshot, resolved and its digests verified by its root digest; raises as `load_resolved`."""

    def __init__(
        self, repository: Repository, manifest: Manifest, index: LoadedIndex, table: SlotTable | None = None
    ) -> None:
        """Args: table: one of several snapshots, so that one walk can expand what they need; a new one if not given."""
        self.manifest, self._repository = manifest, repository
        self.table = SlotTable(repository, index) if table is None else table
        self.resolved = load_resolved(repository, manifest, self.table)
        self.runs = self.resolved.map.runs
        self._reader = RecordReader(repository, self.table, find_delta_decoder)
        self._places = SlotLookup(self.runs)
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

    def bytes_of(self, records: RecordNumbers) -> int:
        """Return how many bytes of the image `records` supply."""
        firsts = self._range_starts[records]
        ranges = expand_ranges(firsts, self._range_starts[records + 1] - firsts)
        return int(self._ranges["length"][ranges].sum())

    @property
    def memory_bytes(self) -> int:
        """About what this takes, without the table."""
        return (len(self.runs) + len(self._ranges)) * _RUN_MEMORY_BYTES + self._range_starts.nbytes

    @property
    def parallel_reads(self) -> int:
        """How many reads at once are of use, whatever the processor has to do: more than one over a network."""
        return count_requests(self._reader)

    @property
    def _region_source_bytes(self) -> int:
        return REGION_SOURCE_BYTES if self.parallel_reads == 1 else REMOTE_SOURCE_BYTES

    @property
    def records(self) -> RecordNumbers:
        """The numbers of the records that the snapshot needs."""
        return self._records

    @property
    def closure(self) -> RecordNumbers:
        """The same, and those that only others are encoded against."""
        return self._closure

    def plan(
        self, records: RecordNumbers | None = None, *, can_read_back: bool = False, in_few_steps: bool = False
    ) -> WalkPlan:
        """Plan a walk over `records`, or over all that the snapshot needs.

        Args:
            can_read_back: the walk will place each block of the image and can read it again.
            in_few_steps: for a cluster, to which a step must bring much work.
        """
        needed = self._closure if records is None else self.table.add_sources(records)
        return plan_walk(
            self.table,
            needed,
            self._block_bytes,
            region_source_bytes=None if in_few_steps else self._region_source_bytes,
            placed_bytes=self.data_bytes if can_read_back else 0,
            find_blocks=self._find_blocks if can_read_back else None,
        )

    def walk(
        self,
        plan: WalkPlan,
        place: PlaceContent | None,
        *,
        read_back: ReadBack | None = None,
        keep_going: bool,
        workers: int | None = None,
        spool_folder: str | None = None,
        cluster: Cluster | None = None,
    ) -> Iterator[WalkedGroup]:
        """Fetch, expand and verify what was planned, on all cores; hand each record to `place`, from any thread.

        Args:
            read_back: given exactly if the plan was made with `can_read_back`.
            spool_folder: where sources that cannot be read back are kept, if they are many.
            cluster: where to do it, without `place` and with `keep_going`; on threads of this process, if not given.

        Raises:
            IntegrityError, ObjectNotFound: as soon as one is met, unless `keep_going`: then it is reported in the result.
        """

        def handle(record: RecordNumber, content: memoryview, _: ReadSources) -> None:
            if place is not None:
                place(self._ranges_of(record), content)

        walk = RecordWalk(
            self._reader,
            self.table,
            self._block_bytes,
            plan.kept,
            find_blocks=self._find_blocks if read_back else None,
            read_back=read_back,
            spool_folder=spool_folder,
        )
        block_counts = self._count_blocks()
        try:
            if cluster is None:
                done = walk.run(plan.steps, handle, keep_going=keep_going, workers=workers)
            else:
                assert place is None, "what workers expand stays there"
                done = walk_remotely(walk, self.table, RepositoryPlace.of(self._repository), cluster, plan.steps)
            for walked in done:
                yield self._report(walked, block_counts)
        finally:
            walk.close()

    def zero_extents(self) -> Iterator[Extent]:
        """Yield everything that reads as zeros, ascending, what touches joined."""
        empty = self.runs[self.runs["slot"] < FIRST_SLOT]
        open_start = open_end = 0
        for first, count in zip(empty["first_block"].tolist(), empty["count"].tolist(), strict=True):
            start = first * self._block_bytes
            if start != open_end:
                if open_end > open_start:
                    yield Extent(open_start, open_end)
                open_start = start
            open_end = min(start + count * self._block_bytes, self.manifest.size_bytes)
        if open_end > open_start:
            yield Extent(open_start, open_end)

    def data_extents(self) -> Iterator[Extent]:
        """Yield everything else, ascending, what touches joined."""
        end = 0
        for zeros in self.zero_extents():
            if zeros.start > end:
                yield Extent(end, zeros.start)
            end = zeros.end
        if end < self.manifest.size_bytes:
            yield Extent(end, self.manifest.size_bytes)

    def extents_of(self, record: RecordNumber) -> list[Extent]:
        """Return the extents of the image that a record supplies, in the order of its slots."""
        return [Extent(offset, offset + length) for offset, length, _ in self._ranges_of(record).tolist()]

    def dependents_of(self, lost: Iterable[RecordNumber]) -> dict[RecordNumber, RecordNumber]:
        """Return which records of the snapshot cannot be expanded without some of its closure, and for each one of these."""
        cause = np.full(self.table.record_count, -1, np.int64)
        lost = list(lost)
        cause[lost] = lost
        depths = self.table.depths_of(self._closure)
        for depth in range(1, int(depths.max(initial=0)) + 1):
            deltas = self._closure[depths == depth]
            sources, counts = self.table.source_records(deltas)
            found = np.maximum.reduceat(cause[sources], np.cumsum(counts) - counts)
            cause[deltas] = np.where(cause[deltas] < 0, found, cause[deltas])
        affected = self._records[cause[self._records] >= 0]
        return dict(zip(affected.tolist(), cause[affected].tolist(), strict=True))

    # -- random reads ------------------------------------------------------------------------------------------------

    def make_reader(self, cache_bytes: int = CACHE_BYTES) -> SnapshotReader:
        """Return a reader for any offset, with a cache of expanded records and a spool of what deltas need."""
        spool = Spool(KeptSlots.apart(self._find_source_slots()), self._block_bytes)
        return SnapshotReader(self, RecordCache(self._reader, self.table, self._block_bytes, cache_bytes, spool))

    @contextmanager
    def open_in_order(
        self, *, progress: Progress | None = None, workers: int | None = None
    ) -> Iterator[SnapshotReader]:
        """Return a reader for all of the snapshot from its start to its end.

        What its deltas need is expanded first and kept, so that reading on never has to expand a chain of them again.
        """
        progress = progress or NoProgress()
        kept = KeptSlots.apart(self._find_source_slots())
        walk = RecordWalk(self._reader, self.table, self._block_bytes, kept)
        try:
            if walk.spool.size_bytes:
                plan = self.plan(distinct(self.table.records_of(walk.spool.slots)))
                block_counts = self._count_blocks()
                with stage(progress, "loading delta sources", plan.decoded_bytes):
                    for walked in walk.run(plan.steps, _ignore, keep_going=True, workers=workers):
                        progress.advance(self._count_decoded(walked, block_counts))
            yield SnapshotReader(self, RecordCache(self._reader, self.table, self._block_bytes, spool=walk.spool))
        finally:
            walk.close()

    # -- parts -------------------------------------------------------------------------------------------------------

    def _find_source_slots(self) -> SlotNumbers:
        """Return the slots that deltas of the snapshot, and deltas that these need, are encoded against."""
        return find_source_slots(self.table, self._closure)

    def _cut_at_records(self) -> Runs:
        """Return the data runs, none across two records, in order of slot, so that each record's are adjacent."""
        data = self.runs[self.runs["slot"] >= FIRST_SLOT]
        cut = self.table.cut_at_records(data, self.manifest.object_name)
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

    def _ranges_of(self, record: RecordNumber) -> Ranges:
        """Return which parts of a record are at which offsets of the image."""
        return self._ranges[self._range_starts[record] : self._range_starts[record + 1]]

    def _find_blocks(self, slots: SlotNumbers) -> BlockIndexes:
        """Return the block of the image that holds each slot whole, -1 for none."""
        blocks = self._places.find(slots)
        return BlockIndexes(np.where((blocks + 1) * self._block_bytes <= self.manifest.size_bytes, blocks, -1))

    def _report(self, walked: WalkedRecords[None], block_counts: npt.NDArray[np.int64]) -> WalkedGroup:
        damage = [
            DamagedExtent(each.start, each.end, reason)
            for record, reason in walked.damaged
            for each in self.extents_of(record)
        ]
        return WalkedGroup(self._count_decoded(walked, block_counts), tuple(damage), walked.damaged)

    def _count_blocks(self) -> npt.NDArray[np.int64]:
        """Return how many blocks each record expands to: to ask for each few of them would cost a tenth of a restore."""
        return self.table.count_present(RecordNumbers(np.arange(self.table.record_count)))

    def _count_decoded(self, walked: WalkedRecords[None], block_counts: npt.NDArray[np.int64]) -> int:
        """Return what records expand to, those that could not be expanded included."""
        records = (*walked.records, *(record for record, _ in walked.damaged))
        return sum(int(block_counts[record]) for record in records) * self._block_bytes


def open_reader(repository: Repository, manifest: Manifest, cache_bytes: int = CACHE_BYTES) -> SnapshotReader:
    """Return a reader for any offset of a snapshot. A prune does not delete what it needs until it is closed.

    Raises:
        IntegrityError, StoreError: its map or the index cannot be read.
    """
    with ExitStack() as stack:
        lock = stack.enter_context(ReaderLock(repository, f"reading {manifest.label}", datetime.now(UTC)))
        reader = SnapshotContent(repository, manifest, load_index(repository)).make_reader(cache_bytes)
        stack.pop_all()
        reader.hold(lock)
    return reader


def _ignore(record: RecordNumber, content: memoryview, read_sources: ReadSources) -> None:
    """Do nothing with a record whose blocks are merely to be kept."""
