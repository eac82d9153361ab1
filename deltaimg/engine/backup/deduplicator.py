# SPDX-License-Identifier: Apache-2.0
"""Match changed blocks with stored content: a reference where a block is stored already, else a place in a new record."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import Digests
from deltaimg.delta.match import Matcher
from deltaimg.engine.backup.changed_blocks import ChangedBlocks
from deltaimg.engine.backup.new_map import NewMap
from deltaimg.engine.backup.record_stream import RecordStream
from deltaimg.engine.content.restore_needs import RestoreNeeds
from deltaimg.ids import RecordNumbers
from deltaimg.repo.slots import SlotTable


class Deduplicator:
    """Sends new blocks into records and enters the slot of every changed block in the new map."""

    def __init__(self, matcher: Matcher, stream: RecordStream, new_map: NewMap, needs: RestoreNeeds) -> None:
        """Args: matcher: has the digests of stored content; new slots are numbered on from it. needs: is kept up to date."""
        self._matcher, self.stream, self._new_map, self._needs = matcher, stream, new_map, needs

    @property
    def digests(self) -> Digests:
        """The digest of each slot, new ones included."""
        return self._matcher.digests

    def store(self, changed: ChangedBlocks) -> None:
        """Refer to those of the changed blocks that are stored already, and store the others; all are copied."""
        slots_before = self._matcher.slot_count
        slots = self._matcher.match(changed.digests)
        is_new = slots >= slots_before
        firsts = np.flatnonzero(is_new)[np.unique(slots[is_new], return_index=True)[1]]
        self._new_map.note_changed(changed.blocks, slots, len(firsts))
        # Before delta sources are chosen for them: what only these blocks needed is needed no longer.
        self._needs.place(changed.blocks, slots, len(firsts))
        self.stream.add(changed.choose(firsts))

    def store_again(self, blocks: ChangedBlocks) -> npt.NDArray[np.int64]:
        """Store blocks though they are stored already; return their new slots."""
        slots = self._matcher.number(blocks.digests)
        self.stream.add(blocks)
        return slots

    def finish(self, table: SlotTable) -> None:
        """Store what is left, and number the new records in `table`."""
        self.stream.finish()
        if table.slot_count + int(self.stream.slot_counts.sum()) != self._matcher.slot_count:
            raise RuntimeError("the slot table has grown since new slots were numbered from its end")
        table.add_new_records(self.stream.record_ids, self.stream.slot_counts, self._matcher.digests)


def learn_stored_blocks(table: SlotTable) -> Matcher:
    """Return a matcher for every block whose digest is loaded and whose content is there."""
    matcher = Matcher(table.digests, table.slot_count)
    firsts, counts = table.present_runs(RecordNumbers(np.flatnonzero(table.is_loaded)))
    # Most records follow one another without a gap: thousands of calls, each of which gives up the interpreter, become a few.
    breaks = np.flatnonzero(firsts[1:] != firsts[:-1] + counts[:-1]) + 1
    starts, ends = np.append(0, breaks), np.append(breaks, len(firsts))
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        if start < end:
            matcher.add_slots(int(firsts[start]), int(counts[start:end].sum()))
    return matcher
