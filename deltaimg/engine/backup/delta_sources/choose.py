# SPDX-License-Identifier: Apache-2.0
"""Choose the delta sources of each new record: one thread's work, in the order of the records.

Anchors of the record's content nominate stored blocks that have the same bytes. What the image's own records do not offer may
be offered by those of similar images. In place of records that are too deep, or that a restore should not have to decode, those
are nominated that they are encoded against. Of the blocks that are nominated, those are chosen that are nominated most often,
within the bounds on delta depth, on records and on bytes. The same backup makes the same choices with any number of threads.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.arrays import Flags, distinct, expand_ranges
from deltaimg.delta.delta_gain import DeltaGainEstimate
from deltaimg.delta.sources import SourceLimits, choose_slots
from deltaimg.engine.backup.context import BackupContext
from deltaimg.engine.backup.delta_sources.anchor_cache import AnchorCache
from deltaimg.engine.backup.delta_sources.fetch import SourceFetcher
from deltaimg.engine.backup.delta_sources.permitted import PermittedSources
from deltaimg.engine.backup.delta_sources.similar_images import SimilarImages
from deltaimg.engine.backup.delta_sources.source_records import NewRecord, SourceRecords
from deltaimg.format.sources import SourceTable
from deltaimg.ids import BlockIndexes, RecordNumbers, SlotNumbers
from deltaimg.kernels.layout import AnchorNames

_MAX_LEVELS = 2
"""Records of one backup that depend on one another. Without this bound backups are 3 % smaller, and restores slower."""
_FEWEST_VOTES = 4
_ENOUGH_VOTES = 0.9
"""The share of the available votes for which the delta depth is increased."""
_ENOUGH_ACCEPTED = 0.5
"""The share of all votes for records that may be sources from which on others are not replaced."""
_MOST_REPLACED = 16
"""Records in whose place others are nominated, those with most votes."""
_LEAST_SHARE = 0.02
"""Of a record's anchors that must be nominated: with fewer, the delta saves less than its sources cost."""


class Choice(Struct, frozen=True):
    """What to encode a record against."""

    slots: SlotNumbers
    """Ascending."""
    share: float
    """The share of the record's anchors that these blocks have."""
    depth: int
    """The record's delta depth, if it is encoded so."""
    records: RecordNumbers
    """The records that the blocks are in, ascending."""


class SourceChooser:
    """Chooses delta sources, and learns from every record what later ones may be encoded against."""

    def __init__(
        self,
        context: BackupContext,
        records: SourceRecords,
        anchors: AnchorCache,
        similar_images: SimilarImages,
        fetcher: SourceFetcher,
        limits: SourceLimits,
        permitted: PermittedSources,
    ) -> None:
        """Make one for a backup."""
        self._records, self._anchors, self._fetcher = records, anchors, fetcher
        self._similar_images, self._limits = similar_images, limits
        self._base_runs, self._new_map = context.base.runs, context.new_map
        self._block_bytes = context.block_bytes
        # A first full backup would become a tenth smaller by deltas within itself, and take twice as long.
        self._uses_own_sources = context.options.delta != "auto" or context.base.is_usable
        self._permitted = permitted
        self._gain_estimate = DeltaGainEstimate()
        anchors.number_slots(records.table, records.first_new_slot)

    def choose(self, content: memoryview, record: NewRecord) -> Choice | None:
        """Number the next new record and return what to encode it against; None for a literal.

        Args:
            record: its runs are in the slots that it will have.
        """
        first_slot = int(record.runs["slot"][0])
        names, positions = self._anchors.collect(content)
        if not self._uses_own_sources and not self._find_similar_images():
            self._remember(names, positions, first_slot)
            self._records.skip()
            return None
        slots = self._anchors.slots_of(self._anchors.find(names))
        self._remember(names, positions, first_slot)
        if self._find_similar_images():
            blocks = expand_ranges(record.runs["first_block"].astype(np.int64), record.runs["count"].astype(np.int64))
            self._ask_similar_images(names, slots, BlockIndexes(blocks[positions // self._block_bytes]))
        nominated, anchors = _count_votes(slots[slots > 0]), len(names)
        choice, levels = self._choose(nominated, anchors, self._permitted.find())
        if choice is not None and not self._permitted.has_room(choice.records):
            choice, levels = self._choose(nominated, anchors, self._permitted.find_at_bound())
        self._records.add(record, choice.depth if choice else 0, levels)
        if choice is None or not self._gain_estimate.is_worth_trying(choice.share):
            return None
        return choice

    def find_used(self, choice: Choice, table: SourceTable | None) -> RecordNumbers:
        """Return those of the chosen records that a source table names; of no table none."""
        named = set() if table is None else {identity.tobytes() for identity in table.ids}
        used = [record for record in choice.records.tolist() if self._records.id_of(record) in named]
        return RecordNumbers(np.array(used, np.int64))

    def note_gain(self, choice: Choice, gain: float) -> None:
        """Note which share of a literal (0 to 1) was saved by encoding a record against a choice."""
        self._gain_estimate.add_result(choice.share, gain)

    # -- parts -------------------------------------------------------------------------------------------------------

    def _remember(self, names: AnchorNames, positions: npt.NDArray[np.uint32], first_slot: int) -> None:
        """Enter a new record's anchors for later records and backups."""
        self._anchors.remember(names, self._anchors.label_new(first_slot + positions // self._block_bytes))

    def _find_similar_images(self) -> bool:
        """Return whether similar images may supply delta sources; looks for them now and then until there are some."""
        made = self._records.new_count + 1
        if not self._similar_images and not made & (made - 1):
            stored = self._new_map.stored_runs(self._base_runs, self._records.first_new_slot)
            referenced = self._records.table.used_records(stored)
            self._similar_images.choose(referenced, self._anchors.numbered_records())
            if self._similar_images:
                self._fetcher.look_also_in(self._similar_images.content_folders)
        return bool(self._similar_images)

    def _ask_similar_images(self, names: AnchorNames, slots: SlotNumbers, blocks: BlockIndexes) -> None:
        """Fill in slots of similar images where this image has none, or only what was in the same block of the image.

        The latter may be a guess, where anchors were collected by reading the image.
        """
        is_open = (slots == 0) | (self._fetcher.image_blocks.find_in_base(slots) == blocks)
        numbers = np.flatnonzero(is_open)
        found = self._similar_images.find(names[numbers], self._fetcher.affordable_depths())
        slots[numbers[found > 0]] = found[found > 0]

    def _choose(self, nominated: _Nominated, anchors: int, permitted: Flags | None) -> tuple[Choice | None, int]:
        """Return the choice, and how many records of this backup depend on one another with it.

        Args:
            nominated: by the record's anchors. anchors: how many there are in all. permitted: of each stored record, whether it
                may be a source; None: all may.
        """
        fewest = max(_FEWEST_VOTES, _LEAST_SHARE * anchors)
        if nominated.votes.sum() < fewest:
            return None, 1
        nominated = self._replace_refused(nominated, permitted)
        slots, votes = nominated.slots, nominated.votes
        records = self._records.records_of(slots)
        is_allowed = self._records.levels_of(records) < _MAX_LEVELS
        is_allowed &= self._fetcher.may_have(slots, records)
        slots, votes, records = slots[is_allowed], votes[is_allowed], records[is_allowed]
        known_anchors = float(votes.sum())
        if known_anchors < fewest:
            return None, 1
        max_slots = max(1, self._limits.content_bytes // self._block_bytes)
        chosen = SlotNumbers(choose_slots(slots, votes, records, self._limits.records, max_slots))
        records = RecordNumbers(distinct(self._records.records_of(chosen)))
        depth = 1 + int(self._records.depths_of(records).max())
        levels = 1 + int(self._records.levels_of(records).max())
        return Choice(chosen, known_anchors / anchors, depth, records), levels

    def _replace_refused(self, nominated: _Nominated, permitted: Flags | None) -> _Nominated:
        """Return what is nominated in records that may be sources; where that is little, what others are encoded against, too.

        A record that is refused hands its votes on to all blocks that it is encoded against: which of these have the
        nominated bytes is not known, but its content was made of them.
        """
        most = self._choose_depth(nominated)
        stored_count = self._records.table.record_count
        accepted: list[_Nominated] = []
        total = float(nominated.votes.sum())
        for _ in range(self._limits.depth + 1):
            records = self._records.records_of(nominated.slots)
            depths = self._records.depths_of(records)
            is_accepted = (depths >= 0) & (depths <= most)
            if permitted is not None:
                is_stored = records < stored_count
                is_accepted[is_stored] &= permitted[records[is_stored]]
            accepted.append(nominated.choose(is_accepted))
            if sum(float(part.votes.sum()) for part in accepted) >= _ENOUGH_ACCEPTED * total:
                break
            nominated = self._find_below(nominated.choose(~is_accepted & (depths > 0) & (records < stored_count)))
            if not len(nominated.slots):
                break
        return _join(accepted)

    def _find_below(self, nominated: _Nominated) -> _Nominated:
        """Return the blocks that nominated stored records are encoded against, with their votes."""
        table = self._records.table
        records, of_record = np.unique(table.records_of(nominated.slots), return_inverse=True)
        votes = np.bincount(of_record, nominated.votes)
        order = np.sort(np.argsort(-votes, kind="stable")[:_MOST_REPLACED])
        deltas, counts = table.count_sources(RecordNumbers(records[order]))
        if not len(deltas):
            return _Nominated(SlotNumbers(np.empty(0, np.int64)), np.empty(0))
        slots = SlotNumbers(expand_ranges(*table.source_slots(deltas)))
        return _join([_Nominated(slots, np.repeat(votes[order] / counts, counts))])

    def _choose_depth(self, nominated: _Nominated) -> int:
        """Return the greatest delta depth of the sources of a record.

        The few votes that would make the whole record deeper are not worth it. Where most of its votes are for sources at the
        bound, shallow ones are used, and its chain begins again.
        """
        bound, depths = self._limits.depth, self._records.depths_of(self._records.records_of(nominated.slots))
        votes = np.where(depths >= 0, nominated.votes, 0)
        by_depth = np.bincount(np.clip(depths, 0, bound), votes, bound + 1).cumsum()
        if by_depth[bound - 1] < by_depth[bound] / 2:
            return max(0, bound // 4 - 1)
        return int(np.argmax(by_depth >= _ENOUGH_VOTES * by_depth[bound - 1]))


class _Nominated(Struct, frozen=True):
    """Slots, ascending, and how many votes each has."""

    slots: SlotNumbers
    votes: npt.NDArray[np.float64]

    def choose(self, is_chosen: npt.NDArray[np.bool_]) -> _Nominated:
        return _Nominated(SlotNumbers(self.slots[is_chosen]), self.votes[is_chosen])


def _count_votes(slots: npt.NDArray[np.int64]) -> _Nominated:
    """Return what is nominated by anchors, of which each nominates one of `slots`."""
    distinct_slots, counts = np.unique(slots, return_counts=True)
    return _Nominated(SlotNumbers(distinct_slots), counts.astype(np.float64))


def _join(parts: list[_Nominated]) -> _Nominated:
    """Return each slot of several parts once, with all of its votes."""
    slots, places = np.unique(np.concatenate([part.slots for part in parts]), return_inverse=True)
    votes = np.concatenate([part.votes for part in parts])
    return _Nominated(SlotNumbers(slots), np.bincount(places, votes, len(slots)).astype(np.float64))
