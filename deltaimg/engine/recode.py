# SPDX-License-Identifier: Apache-2.0
"""Store records again under their own ids: cut to the slots that are needed, or in parts; deltas with other sources or none.

Records are walked as for a restore, each expanded once in a batch: literals first, deltas after their sources. A batch has as
many deltas as a spool of `SPOOL_BYTES` has room for the sources of.

Always  what is encoded, and what it is encoded against, was verified by the digests of its blocks.
Always  the sources of a delta are some of those that it had, or of theirs, so that no record can come to depend on itself.
Memory  16 bytes a slot of the records of a batch; for each thread a record, its sources and what it becomes.
Disk    the spool, in the folder for temporary files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Protocol

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.arrays import distinct, expand_ranges
from deltaimg.codec.zstd import ZstdCodec
from deltaimg.delta.encode import EncodedRecord, Encoder
from deltaimg.delta.registry import find_delta_decoder, make_delta_codecs, make_second_codec
from deltaimg.delta.sources import SourceLimits, Sources
from deltaimg.engine.content.walk import ReadSources, RecordWalk, take_blocks
from deltaimg.engine.content.walk_plan import plan_walk
from deltaimg.engine.pipeline import ThreadBuffer
from deltaimg.engine.progress import Progress, stage
from deltaimg.format.limits import MAX_DELTA_DEPTH, MAX_RECORD_BYTES
from deltaimg.format.sources import SourceTable, describe_slots
from deltaimg.ids import EntryNumber, EntryNumbers, RecordNumber, RecordNumbers, SlotNumbers
from deltaimg.model import GIB
from deltaimg.options.backup import LEVELS
from deltaimg.repo.index import LoadedIndex
from deltaimg.repo.pack_writer import PackWriter
from deltaimg.repo.record_reader import RecordReader
from deltaimg.repo.repository import Repository
from deltaimg.repo.slots import SlotTable

Slots = npt.NDArray[np.int64]

SPOOL_BYTES = GIB
_LIMITS = SourceLimits()
_BATCH_RECORDS = 4096


class RecodedPart(Struct, frozen=True):
    """Some slots of a record that are stored together, under its id, and what they may be encoded against."""

    kept: Slots
    """Ascending; all of them must be there."""
    may_be_sources: Callable[[EntryNumbers, Slots], npt.NDArray[np.bool_]]
    """Returns of a slot of each of some entries whether this part may be encoded against it. Called from any thread."""
    may_look_below: bool = False
    """Whether the sources of a source that may not be one are considered in its place."""


class RecodingRule(Protocol):
    """How records are stored again. Called from any thread."""

    def list_parts(self, entry: EntryNumber) -> Sequence[RecodedPart]:
        """Return what becomes of the record of an index entry: one record or several, the last of which is found first."""
        ...


def recode_records(
    repository: Repository,
    index: LoadedIndex,
    entries: EntryNumbers,
    rule: RecodingRule,
    writer: PackWriter,
    progress: Progress,
    on_damage: Callable[[int, str], None] | None = None,
    *,
    workers: int | None = None,
) -> None:
    """Store the records of index entries again, to `writer`: deltas first, then literals, each in the order in which they lie.

    Args:
        on_damage: called with each entry whose record cannot be read, and why; the others are stored. Without it the first
            error is raised.
    """
    batches = list(_split(repository, index, entries))
    with stage(progress, "re-encoding records", sum(batch.decoded_bytes for batch in batches)):
        for batch in batches:
            _Batch(repository, index, rule, batch).run(writer, progress, on_damage, workers)


# -- batches -----------------------------------------------------------------------------------------------------------


class _Entries(Struct, frozen=True):
    """Entries to store again that are expanded together, and what all records that this takes expand to."""

    entries: EntryNumbers
    block_bytes: int
    decoded_bytes: int


def _split(repository: Repository, index: LoadedIndex, entries: EntryNumbers) -> Iterator[_Entries]:
    """Yield entries in the order in which they lie, of one size of blocks and with room for their sources."""
    rows = index.entries[entries]
    entries = entries[np.lexsort((rows["offset"], rows["pack"]))]
    is_delta = index.links.counts[entries] > 0
    # Deltas first: literals are cut to what is needed once all of these are stored, so that an interrupted run can continue.
    for chosen in (entries[is_delta], entries[~is_delta]):
        shifts = index.entries["block_shift"][chosen]
        for shift in distinct(shifts).tolist():
            of_size = chosen[shifts == shift]
            for first in range(0, len(of_size), _BATCH_RECORDS):
                yield from _halve(repository, index, of_size[first : first + _BATCH_RECORDS], 1 << shift)


def _halve(repository: Repository, index: LoadedIndex, entries: EntryNumbers, block_bytes: int) -> Iterator[_Entries]:
    """Yield these entries in as many parts as it takes for the sources of each to have room; one record always has."""
    table = SlotTable(repository, index)
    walk = plan_walk(table, table.add_sources(table.add_entries(entries)), block_bytes)
    if len(walk.kept.slots) * block_bytes <= SPOOL_BYTES or len(entries) == 1:
        yield _Entries(entries, block_bytes, walk.decoded_bytes)
        return
    middle = len(entries) // 2
    yield from _halve(repository, index, entries[:middle], block_bytes)
    yield from _halve(repository, index, entries[middle:], block_bytes)


class _Batch:
    """One walk over the records of a batch."""

    def __init__(self, repository: Repository, index: LoadedIndex, rule: RecodingRule, batch: _Entries) -> None:
        self._rule, self._block_bytes = rule, batch.block_bytes
        self._table = table = SlotTable(repository, index)
        chosen = table.add_entries(batch.entries)
        self._records = table.add_sources(chosen)
        table.load_digests(self._records)
        self._is_chosen = np.zeros(table.record_count, np.bool_)
        self._is_chosen[chosen] = True
        level = LEVELS["default"]
        self._encoder = Encoder(
            ZstdCodec(level),
            make_delta_codecs("auto", level),
            record_key=repository.keys.record,
            block_bytes=self._block_bytes,
            second_codec=make_second_codec("auto", level),
        )
        reader = RecordReader(repository, table, find_delta_decoder)
        self._plan = plan_walk(table, self._records, self._block_bytes)
        self._walk = RecordWalk(reader, table, self._block_bytes, self._plan.kept)
        self._scratch = ThreadBuffer()

    def run(
        self,
        writer: PackWriter,
        progress: Progress,
        on_damage: Callable[[int, str], None] | None,
        workers: int | None,
    ) -> None:
        try:
            for walked in self._walk.run(
                self._plan.steps, self._handle, keep_going=on_damage is not None, workers=workers
            ):
                for record, reason in walked.damaged:
                    if on_damage is not None and self._is_chosen[record]:
                        on_damage(int(self._table.entries[record]), reason)
                for encoded in chain.from_iterable(walked.results):
                    writer.add(encoded.header, encoded.payload, encoded.digests, encoded.tables)
                progress.advance(int(self._table.slot_counts[list(walked.records)].sum()) * self._block_bytes)
        finally:
            self._walk.close()

    def _handle(self, record: int, content: memoryview, read_sources: ReadSources) -> list[EncodedRecord]:
        """Encode a record that is to be stored again, part by part; called from any thread."""
        if not self._is_chosen[record]:
            return []
        table, entry = self._table, int(self._table.entries[record])
        first, count = int(table.first_slots[record]), int(table.slot_counts[record])
        digests, made = table.digests[first : first + count], []
        for part in self._rule.list_parts(EntryNumber(entry)):
            sources = self._find_sources(record, part, read_sources) if table.index.links.counts[entry] else None
            kept_content = take_blocks(content, part.kept, self._block_bytes) if len(part.kept) < count else content
            scratch = self._scratch.get(MAX_RECORD_BYTES)
            made.append(self._encoder.encode(kept_content, digests.copy(), sources, scratch, part.kept))
        return made

    def _find_sources(self, record: int, part: RecodedPart, read_sources: ReadSources) -> Sources | None:
        """Return those blocks that a delta may stay encoded against, and those found below others."""
        slots = expand_ranges(*self._table.source_slots(RecordNumber(record)))
        places = np.flatnonzero(self._may_be_sources(slots, part))
        content = None
        if len(places):
            content = take_blocks(read_sources(RecordNumber(record)), places, self._block_bytes)
        if part.may_look_below and len(places) < len(slots):
            below = self._look_below(np.delete(slots, places), slots[places], part)
            if len(below):
                return self._read_sources(np.sort(np.concatenate((slots[places], below))))
        if content is None:
            return None
        return Sources(self._describe(slots[places]), content)

    def _look_below(self, refused: Slots, taken: Slots, part: RecodedPart) -> Slots:
        """Return slots that may be sources, of those that records with refused slots are encoded against, level by level."""
        found = [taken[:0]]
        room = _LIMITS.content_bytes // self._block_bytes - len(taken)
        for _ in range(MAX_DELTA_DEPTH):
            records = distinct(self._table.records_of(refused))
            slots = expand_ranges(*self._table.source_slots(RecordNumbers(records)))
            slots = np.setdiff1d(slots, np.concatenate((taken, *found)))
            may_be = self._may_be_sources(slots, part)
            found.append(slots[may_be][:room])
            room -= len(found[-1])
            refused = slots[~may_be]
            if not len(refused) or room <= 0:
                break
        return self._limit_records(np.concatenate(found))

    def _limit_records(self, slots: Slots) -> Slots:
        """Return slots in no more records than a delta may be encoded against, those of which it has most."""
        records, counts = np.unique(self._table.records_of(slots), return_counts=True)
        if len(records) <= _LIMITS.records:
            return slots
        chosen = records[np.argsort(-counts, kind="stable")[: _LIMITS.records]]
        return slots[np.isin(self._table.records_of(slots), chosen)]

    def _may_be_sources(self, slots: Slots, part: RecodedPart) -> npt.NDArray[np.bool_]:
        records = self._table.records_of(slots)
        return part.may_be_sources(self._table.entries[records], slots - self._table.first_slots[records])

    def _read_sources(self, slots: Slots) -> Sources:
        """Return the blocks of ascending slots, all of which were kept for deltas of this batch."""
        content = memoryview(bytearray(len(slots) * self._block_bytes))
        self._walk.spool.get(SlotNumbers(slots), content)
        return Sources(self._describe(slots), content)

    def _describe(self, slots: Slots) -> SourceTable:
        """Return a source table of slots, those of each record together and ascending."""
        records = self._table.records_of(slots)
        within = slots - self._table.first_slots[records]
        return describe_slots(records, within, lambda named: self._table.record_ids[named])
