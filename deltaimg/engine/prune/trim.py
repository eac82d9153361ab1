# SPDX-License-Identifier: Apache-2.0
"""Carry out a `TrimPlan`: store the slots that maps name, and the deltas that stood on the rest, anew.

Snapshots are walked from the oldest to the newest, as they were backed up, and each block is encoded against what stood in
its place in the snapshot before, and against those of its sources that stay. A record that is encoded anew keeps its id, which
names its content; slots of cut records get new ones, and maps are told in `map_rewrite`.

Always  a record's sources are settled before it is: none of them can come to stand on it.
Always  what is encoded, and what it is encoded against, was proven by the digests of its blocks.
Memory  as a backup of these images: 16 bytes a slot of the records in view, the runs of two snapshots; expanded records.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import DIGEST_BYTES, FIRST_SLOT, Runs, distinct, empty_runs, expand_ranges
from deltaimg.codec.zstd import LEVELS, ZstdCodec
from deltaimg.delta.encode import Encoder, Sources, count_record_blocks
from deltaimg.delta.registry import find_delta_decoder, make_delta_codecs
from deltaimg.delta.sources import SourceLimits, choose_slots
from deltaimg.engine.content.record_cache import RecordCache
from deltaimg.engine.pipeline import ThreadBuffer
from deltaimg.engine.prune.trim_plan import TrimPlan, find_dependents
from deltaimg.format.manifest import Manifest
from deltaimg.format.slot_runs import SLOT_RUN
from deltaimg.format.sources import SourceTable
from deltaimg.kernels import expand_runs, subtract_runs
from deltaimg.repo.chain import resolve_map
from deltaimg.repo.index import Index
from deltaimg.repo.numbering import renumber_runs
from deltaimg.repo.pack_writer import PackWriter
from deltaimg.repo.record_reader import RecordReader
from deltaimg.repo.repository import Repository
from deltaimg.repo.slots import SlotTable

_UNSETTLED = -1
_SAME_PLACE_VOTES = 4
"""What stood at the same place before resembles a block more than the average of its old sources."""


class MovedSlots:
    """Where the slots of cut records went: `new` counts over the slots of new records, in the order of their making."""

    def __init__(self, index: Index, cut: npt.NDArray[np.int64]) -> None:
        counts = index.entries["slots"][cut].astype(np.int64)
        self._firsts = np.full(len(index), -1, np.int64)
        self._firsts[cut] = np.cumsum(counts) - counts
        self.new = np.full(int(counts.sum()), -1, np.int64)
        self.ids: list[bytes] = []
        self.counts: list[int] = []
        self.digests: list[npt.NDArray[np.uint8]] = []
        self.depths: list[int] = []
        self._ends: list[int] = []

    def is_cut(self, entries: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Tell whether these entries are of cut records."""
        return self._firsts[entries] >= 0

    def find(self, entries: npt.NDArray[np.int64], within: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the new slot of each slot of cut records, -1 for one that did not move."""
        found: npt.NDArray[np.int64] = self.new[self._firsts[entries] + within]
        return found

    def add(
        self,
        record_id: bytes,
        digests: npt.NDArray[np.uint8],
        depth: int,
        entries: npt.NDArray[np.int64],
        within: npt.NDArray[np.int64],
    ) -> None:
        """Note a new record, and which old slot each of its slots was."""
        first = self._ends[-1] if self._ends else 0
        self.new[self._firsts[entries] + within] = np.arange(first, first + len(entries))
        self.ids.append(record_id)
        self.counts.append(len(entries))
        self.digests.append(digests)
        self.depths.append(depth)
        self._ends.append(first + len(entries))

    def records_of(self, new: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the number of the new record that has each new slot, and its place there."""
        ends = np.array(self._ends, np.int64)
        records = np.searchsorted(ends, new, side="right")
        return records, new - (ends[records] - np.array(self.counts, np.int64)[records])


class Trimmer:
    """Stores anew what a plan says, for images of one block size."""

    def __init__(
        self, repository: Repository, index: Index, plan: TrimPlan, writer: PackWriter, *, block_bytes: int
    ) -> None:
        self._repository, self._index, self._writer, self._block_bytes = repository, index, writer, block_bytes
        self.table = SlotTable(repository, index)
        self.moved = MovedSlots(index, plan.cut)
        self._is_recoded = np.zeros(len(index), np.bool_)
        self._is_recoded[plan.recoded] = True
        self._depths = self._find_settled(plan)
        reader = RecordReader(repository, self.table, find_delta_decoder)
        self._cache = RecordCache(reader, self.table, block_bytes)
        level = LEVELS["default"]
        self._encoder = Encoder(
            ZstdCodec(level),
            make_delta_codecs("auto", level),
            record_key=repository.keys.record,
            block_bytes=block_bytes,
        )
        self._limits = SourceLimits()
        self._scratch = ThreadBuffer()

    def walk(self, manifests: Iterable[Manifest]) -> None:
        """Store anew what the plan says of the snapshots of one image, which come from oldest to newest."""
        before = empty_runs()
        for manifest in manifests:
            resolved = resolve_map(self._repository, manifest, self.table)
            self._take(subtract_runs(resolved.runs, before), before)
            before = resolved.runs

    # -- parts -------------------------------------------------------------------------------------------------------

    def _find_settled(self, plan: TrimPlan) -> npt.NDArray[np.int64]:
        """Return the depth of each record that stays as it is, and all that it stands on; -1 for the others."""
        is_touched = np.zeros(len(self._index), np.bool_)
        for entries in (plan.cut, plan.dropped, plan.recoded):
            is_touched[entries] = True
        while True:
            more = is_touched | find_dependents(self._index, is_touched)
            if np.array_equal(more, is_touched):
                break
            is_touched = more
        return np.where(is_touched, _UNSETTLED, self._index.links.depths)

    def _take(self, changed: Runs, before: Runs) -> None:
        """Store what of the runs that are new in a snapshot belongs to the plan."""
        table = self.table
        data = changed[changed["slot"] >= FIRST_SLOT]
        pieces = renumber_runs(data, table.first_slots, table.slot_counts, table.first_slots)
        entries = table.entries[table.records_of(pieces["slot"])]
        pieces = pieces[self.moved.is_cut(entries) | self._is_recoded[entries]]
        if not len(pieces):
            return
        counts = pieces["count"].astype(np.int64)
        slots = expand_ranges(pieces["slot"].astype(np.int64), counts)
        bases = np.concatenate(
            [
                expand_runs(before, first, count).astype(np.int64)
                for first, count in zip(pieces["first_block"].tolist(), counts.tolist(), strict=True)
            ]
        )
        _, firsts = np.unique(slots, return_index=True)
        firsts.sort()
        slots, bases = slots[firsts], bases[firsts]
        records = table.records_of(slots)
        self._load(records, bases)
        entries = table.entries[records]
        self._recode(records, entries, bases)
        is_cut = self.moved.is_cut(entries)
        self._store_cut(slots[is_cut], bases[is_cut])

    def _load(self, records: npt.NDArray[np.int64], bases: npt.NDArray[np.int64]) -> None:
        """Bring the digests of all that is read into view, and the records that all this stands on."""
        table = self.table
        used = distinct(records)
        links = self._index.links
        sources = distinct(links.entries[links.of(table.entries[used])])
        stay = table.add_entries(sources[self._depths[sources] >= 0])
        used = distinct(used, stay, table.records_of(bases[bases >= FIRST_SLOT]))
        table.load_digests(used)
        table.add_sources(used)

    def _recode(
        self, records: npt.NDArray[np.int64], entries: npt.NDArray[np.int64], bases: npt.NDArray[np.int64]
    ) -> None:
        for record in distinct(records[self._is_recoded[entries]]).tolist():
            first, count = int(self.table.first_slots[record]), int(self.table.slot_counts[record])
            slots = np.arange(first, first + count)
            depth, _ = self._store(slots, bases[records == record])
            entry = int(self.table.entries[record])
            self._depths[entry] = depth
            self._is_recoded[entry] = False

    def _store_cut(self, slots: npt.NDArray[np.int64], bases: npt.NDArray[np.int64]) -> None:
        table = self.table
        records = table.records_of(slots)
        entries, within = table.entries[records], slots - table.first_slots[records]
        is_left = self.moved.find(entries, within) < 0
        slots, bases, entries, within = slots[is_left], bases[is_left], entries[is_left], within[is_left]
        step = count_record_blocks(self._block_bytes)
        for first in range(0, len(slots), step):
            part = slice(first, first + step)
            depth, record_id = self._store(slots[part], bases[part])
            self.moved.add(record_id, table.digests[slots[part]], depth, entries[part], within[part])

    def _store(self, slots: npt.NDArray[np.int64], bases: npt.NDArray[np.int64]) -> tuple[int, bytes]:
        """Encode one record of these slots; return how deep it stands, and its id."""
        chosen, depth = self._choose(slots, bases)
        sources = Sources(self._describe(chosen), self._gather(chosen)) if len(chosen) else None
        content = self._gather(slots)
        digests = np.ascontiguousarray(self.table.digests[slots])
        record = self._encoder.encode(content, digests, sources, self._scratch.get(len(content)))
        self._writer.add(record.header, record.payload, record.digests, record.tables)
        return (depth if record.tables.sources is not None else 0), record.header.id

    def _choose(self, slots: npt.NDArray[np.int64], bases: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], int]:
        """Return what to encode against, in the order of the records that have it now, and the depth that follows."""
        table = self.table
        same_place = np.repeat(bases[bases >= FIRST_SLOT], _SAME_PLACE_VOTES)
        parts = [same_place]
        records = distinct(table.records_of(slots))
        # No deeper than they were, so that what stands on them does not pass the bound either.
        was_deep = int(self._index.links.depths[table.entries[records]].max())
        most_depth = min(self._limits.depth, max(1, was_deep))
        for record in records.tolist():
            links = self._index.links
            entry = int(table.entries[record])
            if (self._depths[links.entries[links.starts[entry] : links.starts[entry + 1]]] >= 0).any():
                parts.append(self._list_sources(record))
        candidates, votes = np.unique(np.concatenate(parts), return_counts=True)
        keys, _, depths = self._locate(candidates)
        is_allowed = (depths >= 0) & (depths < most_depth)
        candidates, votes, keys = candidates[is_allowed], votes[is_allowed], keys[is_allowed]
        if not len(candidates):
            return candidates, 0
        most_slots = max(1, self._limits.content_bytes // self._block_bytes)
        chosen = choose_slots(candidates, votes, keys, self._limits.records, most_slots)
        keys, within, depths = self._locate(chosen)
        return chosen[np.lexsort((within, keys))], 1 + int(depths.max())

    def _list_sources(self, record: int) -> npt.NDArray[np.int64]:
        """Return those old sources of a record that stay as they are."""
        slots = expand_ranges(*self.table.source_slots(record))
        stays = self._depths[self.table.entries[self.table.records_of(slots)]] >= 0
        return slots[stays]

    def _locate(
        self, slots: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return, for each slot, a number for the record that has it now, its place there, and that record's depth.

        Numbers of new records are below 0; a depth of -1 means that the slot has no settled place yet.
        """
        table = self.table
        keys = table.records_of(slots)
        entries, within = table.entries[keys], slots - table.first_slots[keys]
        depths = self._depths[entries]
        cut = np.flatnonzero(self.moved.is_cut(entries))
        new = self.moved.find(entries[cut], within[cut])
        cut, new = cut[new >= 0], new[new >= 0]
        if len(cut):
            numbers, within[cut] = self.moved.records_of(new)
            keys[cut] = -1 - numbers
            depths[cut] = np.array(self.moved.depths, np.int64)[numbers]
        return keys, within, depths

    def _describe(self, chosen: npt.NDArray[np.int64]) -> SourceTable:
        keys, within, _ = self._locate(chosen)
        begins_record = np.concatenate(([True], keys[1:] != keys[:-1]))
        begins_run = begins_record | np.concatenate(([True], within[1:] != within[:-1] + 1))
        starts = np.flatnonzero(begins_run)
        runs = np.empty(len(starts), SLOT_RUN)
        runs["first_slot"], runs["count"] = within[starts], np.diff(np.append(starts, len(keys)))
        named, counts = np.unique(keys[starts], return_counts=True)
        ids = b"".join(
            self.moved.ids[-1 - key] if key < 0 else self.table.record_ids[key].tobytes() for key in named.tolist()
        )
        return SourceTable(np.frombuffer(ids, np.uint8).reshape(-1, DIGEST_BYTES), counts.astype(np.uint16), runs)

    def _gather(self, slots: npt.NDArray[np.int64]) -> memoryview:
        """Return the content of slots, in their order."""
        content = np.empty((len(slots), self._block_bytes), np.uint8)
        records = self.table.records_of(slots)
        for record in distinct(records).tolist():
            blocks = np.frombuffer(self._cache.get(record), np.uint8).reshape(-1, self._block_bytes)
            wanted = records == record
            content[wanted] = blocks[slots[wanted] - int(self.table.first_slots[record])]
        return content.reshape(-1).data
