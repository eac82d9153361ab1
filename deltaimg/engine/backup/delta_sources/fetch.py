# SPDX-License-Identifier: Apache-2.0
"""Fetch the bytes of chosen delta sources: any thread's work, once the sources are chosen.

A block is read from the image where it is unchanged there, else from content that earlier backups kept on this host, else
from the repository, where little else must be decoded for it.

Always  blocks of the image and of kept content are digested and compared before they are used.
Memory  the blocks of one record's delta sources for each thread, and one expanded record.
"""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import distinct, expand_ranges, ranges_of_blocks
from deltaimg.delta.encode import Sources
from deltaimg.delta.match import Matcher
from deltaimg.engine.backup.context import BackupContext
from deltaimg.engine.backup.delta_sources.content_cache import ContentCache
from deltaimg.engine.backup.delta_sources.expanded_records import ExpandedRecords
from deltaimg.engine.backup.delta_sources.source_records import SourceRecords
from deltaimg.engine.content.slot_lookup import SlotLookup
from deltaimg.errors import DeltaimgError
from deltaimg.ids import BlockIndexes, RecordNumber, SlotNumbers
from deltaimg.kernels import digest_blocks
from deltaimg.repo.record_reader import RecordReader

EXPANDED_DEPTH = 1
"""A block that the image no longer has is decoded from the repository if its record's delta depth is at most this. With one
more, a backup of rewritten files takes ten times as long; content of deeper records is kept on this host."""


class SourceFetcher:
    """Reads delta sources; any number of threads may use one."""

    def __init__(
        self,
        context: BackupContext,
        records: SourceRecords,
        reader: RecordReader,
        matcher: Matcher,
        contents: ContentCache,
        expanded: ExpandedRecords,
    ) -> None:
        """Make one for a backup.

        Args:
            matcher: has the digests of all slots, those of this backup included.
        """
        self._image, self._block_bytes = context.source, context.block_bytes
        self._block_key = context.repository.keys.block
        self._records, self._table, self._reader = records, records.table, reader
        self._matcher, self._contents, self._expanded = matcher, contents, expanded
        self._base_blocks = SlotLookup(context.base.runs)
        self._is_affordable = self._find_affordable()

    def may_have(self, slots: SlotNumbers) -> npt.NDArray[np.bool_]:
        """Return whether each slot can be fetched, as far as that can be known before it is tried."""
        is_new = self._records.is_new(slots)
        is_available = is_new | (self.find_in_base(slots) >= 0)
        others = np.flatnonzero(~is_available)
        is_available[others] = self._is_affordable[self._table.records_of(slots[others])]
        stored = np.flatnonzero(~is_new)
        is_available[stored] &= self._table.are_there(slots[stored])
        return is_available

    def find_in_base(self, slots: SlotNumbers) -> BlockIndexes:
        """Return the block of the image that the base stores in each slot, -1 where there is none."""
        return self._base_blocks.find(SlotNumbers(slots))

    def affordable_depths(self) -> npt.NDArray[np.int64]:
        """Return the delta depth of each stored record whose content is available without the image, -1 for the others."""
        return np.where(self._is_affordable, self._records.stored_depths, -1)

    def look_also_in(self, folders: list[str]) -> None:
        """Read content that backups of other images kept in `folders`, too."""
        for folder in folders:
            self._contents.look_also_in(folder)
        self._is_affordable = self._find_affordable()

    def fetch(self, slots: SlotNumbers) -> Sources | None:
        """Return ascending slots with their bytes, without those that cannot be read; None if none can."""
        blocks, is_available = self._read(slots)
        if not is_available.any():
            return None
        if not is_available.all():
            blocks = blocks[is_available]
        return Sources(self._records.describe(slots[is_available]), blocks.reshape(-1).data)

    def keep(self, record_id: bytes, depth: int, content: memoryview) -> None:
        """Keep a new delta record's content on this host if the next backup could not afford to decode it."""
        if depth > EXPANDED_DEPTH:
            self._contents.put(record_id, content)

    # -- where bytes come from -----------------------------------------------------------------------------------------

    def _find_affordable(self) -> npt.NDArray[np.bool_]:
        """Return, for each stored record, whether its content is kept on this host or cheap to decode."""
        is_kept = [
            self._records.id_of(RecordNumber(record)) in self._contents for record in range(self._table.record_count)
        ]
        return (self._records.stored_depths <= EXPANDED_DEPTH) | np.array(is_kept, np.bool_)

    def _read(self, slots: SlotNumbers) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        """Return the blocks of slots, a row of bytes each, and which of them could be read."""
        blocks = np.empty((len(slots), self._block_bytes), np.uint8)
        is_available = np.zeros(len(slots), np.bool_)
        if not self._image.is_sequential:
            self._read_image(slots, is_available, blocks)
        self._read_stored(slots, is_available, blocks)
        return blocks, is_available

    def _read_image(self, slots: SlotNumbers, is_available: npt.NDArray[np.bool_], out: npt.NDArray[np.uint8]) -> None:
        """Fill in what the image still has."""
        blocks = self.find_in_base(slots)
        new = np.flatnonzero(self._records.is_new(slots))
        if len(new):
            blocks[new] = self._records.find_new(slots[new])
        found = np.flatnonzero(blocks >= 0)
        read = np.empty((len(found), self._block_bytes), np.uint8)
        ranges = ranges_of_blocks(blocks[found], np.arange(len(found)), self._block_bytes)
        self._image.reread(ranges, read.reshape(-1).data)
        out[found] = read
        is_available[found] = self._are_equal(read, slots[found])

    def _read_stored(self, slots: SlotNumbers, is_available: npt.NDArray[np.bool_], out: npt.NDArray[np.uint8]) -> None:
        """Fill in missing blocks from stored records; what cannot be read is left out."""
        missing = np.flatnonzero(~is_available & ~self._records.is_new(slots))
        records = self._table.records_of(slots[missing])
        within = slots[missing] - self._table.first_slots[records]
        kept, blocks = self._expanded.read(records, within)
        out[missing[kept]] = blocks
        is_available[missing[kept]] = self._are_equal(blocks, slots[missing[kept]])
        is_open = ~is_available[missing]
        for record in distinct(records[is_open]).tolist():
            numbers = np.flatnonzero(is_open & (records == record))
            content = self._expand(record, within[numbers], slots[missing[numbers]])
            if content is not None:
                out[missing[numbers]] = content[within[numbers]]
                is_available[missing[numbers]] = True

    def _expand(
        self, record: RecordNumber, within: npt.NDArray[np.int64], slots: SlotNumbers
    ) -> npt.NDArray[np.uint8] | None:
        """Return the blocks of a stored record, `slots` of them verified; None if they cannot be read or cost too much."""
        # Kept content can only be verified where the record's digests are loaded.
        is_loaded = bool(self._table.is_loaded[record])
        length = int(self._table.slot_counts[record]) * self._block_bytes
        content: bytes | memoryview | None = None
        if is_loaded:
            content = self._contents.get(self._records.id_of(record), length)
        if content is not None:
            blocks = np.frombuffer(content, np.uint8).reshape(-1, self._block_bytes)
            if not self._are_equal(blocks[within], slots).all():
                content = None
        if content is None and self._records.stored_depths[record] <= EXPANDED_DEPTH:
            with suppress(DeltaimgError):
                content = self._reader.read(record, self._gather)
        if content is None:
            return None
        if is_loaded:
            self._expanded.put(record, memoryview(content))
        return np.frombuffer(content, np.uint8).reshape(-1, self._block_bytes)

    def _gather(self, record: RecordNumber) -> memoryview:
        """Return the delta sources of a stored record; raises ValueError where they cannot be read."""
        blocks, is_available = self._read(SlotNumbers(expand_ranges(*self._table.source_slots(record))))
        if not is_available.all():
            raise ValueError("its delta sources cannot be read")
        return blocks.reshape(-1).data

    def _are_equal(self, blocks: npt.NDArray[np.uint8], slots: SlotNumbers) -> npt.NDArray[np.bool_]:
        """Return whether each of `blocks`, a row of bytes each, has the digest of its slot."""
        found = digest_blocks(self._block_key, np.ascontiguousarray(blocks).data, self._block_bytes)
        is_equal: npt.NDArray[np.bool_] = (found == self._matcher.digests[slots]).all(axis=1)
        return is_equal
