# SPDX-License-Identifier: Apache-2.0
"""What a record of new blocks may be encoded against, and where those bytes come from.

Choosing is one thread's work, in the order of the records, so that the same run finds the same sources with any number of
threads. Reading them is any thread's: from the image, where they stand unchanged, else from the content kept of the nights
before, else from the repository, where little else must be expanded for them, and once.

Always  blocks taken from the image or from kept content are digested and compared first: what is not right is no source.
Memory  the anchors' table, 16 bytes for each run of the map and of the latest new records.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import DIGEST_BYTES, Digests, Runs, distinct, expand_ranges, ranges_of_blocks
from deltaimg.delta.encode import Sources
from deltaimg.delta.sources import SourceLimits, choose_slots
from deltaimg.engine.backup.anchor_cache import AnchorCache
from deltaimg.engine.backup.content_cache import ContentCache
from deltaimg.engine.backup.delta_cost import DeltaCost
from deltaimg.engine.backup.expanded_records import ExpandedRecords
from deltaimg.engine.backup.relatives import Relatives
from deltaimg.engine.content.places import SlotPlaces
from deltaimg.errors import DeltaimgError
from deltaimg.format.slot_runs import SLOT_RUN
from deltaimg.format.sources import SourceTable
from deltaimg.image.source import Source
from deltaimg.kernels import digest_blocks
from deltaimg.kernels.layout import AnchorNames
from deltaimg.repo.record_reader import RecordReader
from deltaimg.repo.slots import SlotTable

_REMEMBERED_RECORDS = 8192
"""So many of the latest records of the run can be sources of later ones."""
_IN_FLIGHT = 256
"""Those are remembered somewhat longer than they are chosen: chosen sources are read later."""
_MAX_LEVELS = 2
"""Records of one run that stand on one another. Any number of them saves 3 % on an ordinary night, and restores slower."""
_EXPANDED_DEPTH = 1
"""What is no longer in the image is expanded from the repository if its record is at most so deep. With one more, a night
that rewrites files takes ten times as long; deeper content is kept on this host."""
_FEWEST_VOTES = 4
_ENOUGH_VOTES = 0.9
"""Of those that might be had."""
_LEAST_SHARE = 0.02
"""Of the anchors of a record that must be known: fewer promise less than the sources would cost."""


@dataclass(frozen=True, slots=True)
class _NewRecord:
    """A record of this run: what it is called, and where its blocks stand in the image."""

    id: bytes
    runs: Runs


@dataclass(frozen=True, slots=True)
class Choice:
    """What to encode a record against."""

    slots: npt.NDArray[np.int64]
    """Ascending."""
    share: float
    """Of the record's anchors, how many are known to stand there."""
    depth: int
    """Of the record, when it is encoded so."""


class SourceFinder:
    """Chooses and reads sources."""

    def __init__(
        self,
        table: SlotTable,
        anchors: AnchorCache,
        contents: ContentCache,
        reader: RecordReader,
        expanded: ExpandedRecords,
        source: Source,
        relatives: Relatives,
        *,
        base_runs: Runs,
        referenced: Callable[[], Runs],
        first_new_slot: int,
        record_blocks: int,
        block_bytes: int,
        block_key: bytes,
        digests: Callable[[], Digests],
        cost: DeltaCost,
        limits: SourceLimits,
    ) -> None:
        """Make one for a run.

        Args:
            referenced: returns what the new map refers to so far.
            digests: returns those of all slots, new ones included.
        """
        self._table, self._anchors, self._source = table, anchors, source
        self._contents, self._reader, self._expanded = contents, reader, expanded
        self._places = SlotPlaces(base_runs)
        self._first_new_slot, self._record_blocks, self._block_bytes = first_new_slot, record_blocks, block_bytes
        self._block_key, self._digests, self._limits = block_key, digests, limits
        self._cost = cost
        self._new: OrderedDict[int, _NewRecord] = OrderedDict()
        self._next_record = 0
        # Of each of the latest new records, at its number modulo their length: how deep it may be, and how many records of
        # this run stand on one another, it being the uppermost.
        self._new_depths, self._new_levels = np.zeros((2, _REMEMBERED_RECORDS), np.int64)
        depths = table.index.links.depths
        self._depths = depths[table.entries].astype(np.int64) if len(depths) else np.empty(0, np.int64)
        self._is_readable = self._find_readable()
        anchors.number_slots(table, first_new_slot)
        self._relatives, self._referenced = relatives, referenced

    def find_relatives(self) -> bool:
        """Tell whether other images may supply sources, after another look for them now and then."""
        made = self._next_record + 1
        if not self._relatives and not made & (made - 1):
            self._relatives.choose(self._table.used_records(self._referenced()), self._anchors.records_in_view())
            if self._relatives:
                self._is_readable = self._find_readable()
        return bool(self._relatives)

    def learn(self, content: memoryview, first_slot: int) -> None:
        """Remember a new record that is not to be a source in this run, but in later ones."""
        names, positions = self._anchors.collect(content)
        self._anchors.remember(names, self._anchors.label_new(first_slot + positions // self._block_bytes))
        self._new_depths[self._next_record % _REMEMBERED_RECORDS] = -1
        self._next_record += 1

    def choose(self, content: memoryview, record_id: bytes, runs: Runs) -> Choice | None:
        """Return what the next new record should be encoded against; None if nothing is similar.

        Args:
            runs: the blocks of the image that the record holds, and its slots.
        """
        self._cost.note_record(int(runs["count"].sum()))
        names, positions = self._anchors.collect(content)
        slots = self._anchors.slots_of(self._anchors.find(names))
        first_slot = int(runs["slot"][0])
        self._anchors.remember(names, self._anchors.label_new(first_slot + positions // self._block_bytes))
        if self.find_relatives():
            blocks = expand_ranges(runs["first_block"].astype(np.int64), runs["count"].astype(np.int64))
            self._ask_relatives(names, slots, blocks[positions // self._block_bytes])
        choice, depth, levels = self._choose(slots[slots > 0], len(names))
        self._new[self._next_record] = _NewRecord(record_id, runs)
        self._new_depths[self._next_record % _REMEMBERED_RECORDS] = depth
        self._new_levels[self._next_record % _REMEMBERED_RECORDS] = levels
        self._next_record += 1
        if len(self._new) > _REMEMBERED_RECORDS + _IN_FLIGHT:
            self._new.popitem(last=False)
        return choice

    def keep(self, record_id: bytes, choice: Choice, content: memoryview) -> None:
        """Keep the content of a new delta record on this host, where the next night could not expand it."""
        if choice.depth > _EXPANDED_DEPTH:
            self._contents.put(record_id, content)

    def read(self, choice: Choice) -> Sources | None:
        """Fetch what was chosen; what cannot be had any more is left out."""
        blocks, is_there = self._fetch(choice.slots)
        if not is_there.any():
            return None
        if not is_there.all():
            blocks = blocks[is_there]
        return Sources(self._describe(choice.slots[is_there]), blocks.reshape(-1).data)

    # -- parts -------------------------------------------------------------------------------------------------------

    def _find_readable(self) -> npt.NDArray[np.bool_]:
        """Tell of the table's records which can be had cheaply, though the image does not hold them."""
        kept = [self._name(record) in self._contents for record in range(self._table.record_count)]
        return (self._depths <= _EXPANDED_DEPTH) | np.array(kept, np.bool_)

    def _ask_relatives(self, names: AnchorNames, slots: npt.NDArray[np.int64], blocks: npt.NDArray[np.int64]) -> None:
        """Fill in slots of other images where this one knows none, or only what stood in the same block of the image.

        The latter may be a guess, of anchors learnt from the image itself.
        """
        open_places = np.flatnonzero((slots == 0) | (self._places.find(slots) == blocks))
        found = self._relatives.find(names[open_places], np.where(self._is_readable, self._depths, -1))
        slots[open_places[found > 0]] = found[found > 0]

    def _choose(self, slots: npt.NDArray[np.int64], anchors: int) -> tuple[Choice | None, int, int]:
        """Return the choice, and how deep and on how many levels of this run a record with such sources stands."""
        nothing = None, 0, 1
        fewest = max(_FEWEST_VOTES, _LEAST_SHARE * anchors)
        if len(slots) < fewest:
            return nothing
        slots, votes = np.unique(slots, return_counts=True)
        records, depths, levels = self._find_records(slots)
        deepest = self._choose_depth(depths, votes)
        is_allowed = (depths >= 0) & (depths <= deepest) & (levels < _MAX_LEVELS)
        is_allowed &= self._may_be_readable(slots, records)
        slots, votes, records = slots[is_allowed], votes[is_allowed], records[is_allowed]
        known_anchors = int(votes.sum())
        if known_anchors < fewest:
            return nothing
        chosen = choose_slots(
            slots, votes, records, self._limits.records, max(1, self._limits.content_bytes // self._block_bytes)
        )
        records, depths, levels = self._find_records(chosen)
        self._cost.note_sources(records)
        depth = 1 + int(depths.max())
        return Choice(chosen, known_anchors / anchors, depth), depth, 1 + int(levels.max())

    def _choose_depth(self, depths: npt.NDArray[np.int64], votes: npt.NDArray[np.int64]) -> int:
        """Return how deep the sources of a record may stand, given how many anchors are known at each depth.

        The few votes that would put all of the record deeper are not worth it. Where most of its content has reached the bound,
        it begins anew on shallow sources, or on none.
        """
        bound = self._cost.bound_depth(self._limits.depth)
        by_depth = np.bincount(np.clip(depths, 0, bound), np.where(depths >= 0, votes, 0), bound + 1).cumsum()
        if by_depth[bound - 1] < by_depth[bound] / 2:
            return bound // 4 - 1
        return int(np.argmax(by_depth >= _ENOUGH_VOTES * by_depth[bound - 1]))

    def _may_be_readable(self, slots: npt.NDArray[np.int64], records: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Tell of slots which can be fetched: of those that the image had, this is not known before it is tried."""
        is_there = (slots >= self._first_new_slot) | (self._places.find(slots) >= 0)
        others = np.flatnonzero(~is_there)
        is_there[others] = self._is_readable[records[others]]
        old = np.flatnonzero(slots < self._first_new_slot)
        is_there[old] &= self._table.are_there(slots[old])
        return is_there

    def _find_records(
        self, slots: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the record number of each slot, those of new records counting on from the table's, its depth and levels.

        A depth of -1 means that it cannot be used.
        """
        is_new = slots >= self._first_new_slot
        new_numbers = (slots - self._first_new_slot) // self._record_blocks
        records = self._table.records_of(np.where(is_new, 0, slots))
        depths = self._depths[records] if len(self._depths) else np.full(len(slots), -1)
        depths = np.where(records >= 0, depths, -1)
        places = new_numbers % _REMEMBERED_RECORDS
        is_remembered = (new_numbers >= self._next_record - _REMEMBERED_RECORDS) & (new_numbers < self._next_record)
        depths = np.where(is_new, np.where(is_remembered, self._new_depths[places], -1), depths)
        levels = np.where(is_new & is_remembered, self._new_levels[places], 0)
        return np.where(is_new, self._table.record_count + new_numbers, records), depths, levels

    def _fetch(self, slots: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        """Return the blocks of slots, a row of bytes each, and which of them could be had."""
        blocks = np.empty((len(slots), self._block_bytes), np.uint8)
        is_there = np.zeros(len(slots), np.bool_)
        if not self._source.is_sequential:
            self._read_image(slots, is_there, blocks)
        self._read_elsewhere(slots, is_there, blocks)
        return blocks, is_there

    def _read_image(
        self, slots: npt.NDArray[np.int64], is_there: npt.NDArray[np.bool_], out: npt.NDArray[np.uint8]
    ) -> None:
        """Fill in what the image still has."""
        blocks = self._places.find(slots)
        new = np.flatnonzero(slots >= self._first_new_slot)
        if len(new):
            blocks[new] = self._place_new(slots[new])
        placed = np.flatnonzero(blocks >= 0)
        read = np.empty((len(placed), self._block_bytes), np.uint8)
        ranges = ranges_of_blocks(blocks[placed], np.arange(len(placed)), self._block_bytes)
        self._source.reread(ranges, read.reshape(-1).data)
        out[placed] = read
        is_there[placed] = self._are_right(read, slots[placed])

    def _place_new(self, slots: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return where in the image the blocks of slots of this run stand."""
        numbers = (slots - self._first_new_slot) // self._record_blocks
        blocks = np.full(len(slots), -1, np.int64)
        for number in distinct(numbers).tolist():
            new = self._new.get(number)
            if new is not None:
                blocks[numbers == number] = SlotPlaces(new.runs).find(slots[numbers == number])
        return blocks

    def _read_elsewhere(
        self, slots: npt.NDArray[np.int64], is_there: npt.NDArray[np.bool_], out: npt.NDArray[np.uint8]
    ) -> None:
        """Fill in those that are missing; what cannot be read costs a source and no more."""
        missing = np.flatnonzero(~is_there & (slots < self._first_new_slot))
        records = self._table.records_of(slots[missing])
        within = slots[missing] - self._table.first_slots[records]
        kept, blocks = self._expanded.read(records, within)
        is_right = self._are_right(blocks, slots[missing[kept]])
        out[missing[kept]] = blocks
        is_there[missing[kept]] = is_right
        is_open = ~is_there[missing]
        for record in distinct(records[is_open]).tolist():
            numbers = np.flatnonzero(is_open & (records == record))
            content = self._expand(record, within[numbers], slots[missing[numbers]])
            if content is not None:
                out[missing[numbers]] = content[within[numbers]]
                is_there[missing[numbers]] = True

    def _expand(
        self, record: int, within: npt.NDArray[np.int64], slots: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.uint8] | None:
        """Return the blocks of a stored record, `slots` of them proven; None if that is not possible or costs too much."""
        # Without its digests at hand nothing could tell whether what was kept is right.
        is_loaded = bool(self._table.is_loaded[record])
        length = int(self._table.slot_counts[record]) * self._block_bytes
        content: bytes | memoryview | None = self._contents.get(self._name(record), length) if is_loaded else None
        if content is not None:
            blocks = np.frombuffer(content, np.uint8).reshape(-1, self._block_bytes)
            if not self._are_right(blocks[within], slots).all():
                content = None
        if content is None and self._depths[record] <= _EXPANDED_DEPTH:
            with suppress(DeltaimgError):
                content = self._reader.read(record, self._gather)
        if content is None:
            return None
        if is_loaded:
            self._expanded.put(record, memoryview(content))
        return np.frombuffer(content, np.uint8).reshape(-1, self._block_bytes)

    def _gather(self, record: int) -> memoryview:
        """Return what a stored delta record is encoded against; raises ValueError where it cannot be had."""
        blocks, is_there = self._fetch(expand_ranges(*self._table.source_slots(record)))
        if not is_there.all():
            raise ValueError("is encoded against what cannot be read")
        return blocks.reshape(-1).data

    def _are_right(self, blocks: npt.NDArray[np.uint8], slots: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Tell of each of `blocks`, a row of bytes each, whether it is what a slot's digest says."""
        found = digest_blocks(self._block_key, np.ascontiguousarray(blocks).data, self._block_bytes)
        is_right: npt.NDArray[np.bool_] = (found == self._digests()[slots]).all(axis=1)
        return is_right

    def _describe(self, slots: npt.NDArray[np.int64]) -> SourceTable:
        """Return ascending slots as the table that a record begins with."""
        begins_run = np.concatenate(([True], slots[1:] != slots[:-1] + 1))
        records, _, _ = self._find_records(slots)
        begins_record = np.concatenate(([True], records[1:] != records[:-1]))
        starts = np.flatnonzero(begins_run | begins_record)
        runs = np.empty(len(starts), SLOT_RUN)
        run_records = records[starts]
        is_new = run_records >= self._table.record_count
        new_numbers = run_records - self._table.record_count
        firsts = np.where(
            is_new,
            self._first_new_slot + new_numbers * self._record_blocks,
            self._table.first_slots[np.where(is_new, 0, run_records)] if self._table.record_count else 0,
        )
        runs["first_slot"] = slots[starts] - firsts
        runs["count"] = np.diff(np.append(starts, len(slots)))
        named, run_counts = np.unique(run_records, return_counts=True)
        ids = b"".join(self._name(number) for number in named.tolist())
        return SourceTable(np.frombuffer(ids, np.uint8).reshape(-1, DIGEST_BYTES), run_counts.astype(np.uint16), runs)

    def _name(self, record: int) -> bytes:
        if record < self._table.record_count:
            return bytes(self._table.record_ids[record].data)
        return self._new[record - self._table.record_count].id
