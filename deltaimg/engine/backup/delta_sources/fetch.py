# SPDX-License-Identifier: Apache-2.0
"""Fetch the bytes of chosen delta sources: any thread's work, once the sources are chosen.

A block is read from the image where it is unchanged there, else from a clone of the base that change tracking kept, else from
content that earlier backups kept on this host, else from the repository, where little else must be decoded for it.

Always  blocks of the image and of kept content are digested and compared before they are used.
Memory  the blocks of one record's delta sources for each thread, twice where a source is a delta, and one expanded record.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import Flags, distinct, expand_ranges, ranges_of_blocks
from deltaimg.delta.match import Matcher
from deltaimg.delta.sources import Sources
from deltaimg.engine.backup.context import BackupContext
from deltaimg.engine.backup.delta_sources.base_image import BaseImage
from deltaimg.engine.backup.delta_sources.content_cache import ContentCache
from deltaimg.engine.backup.delta_sources.expanded_records import ExpandedRecords
from deltaimg.engine.backup.delta_sources.image_blocks import ImageBlocks
from deltaimg.engine.backup.delta_sources.source_records import SourceRecords
from deltaimg.engine.pipeline import ThreadBuffer
from deltaimg.errors import DeltaimgError
from deltaimg.format.limits import MAX_RECORD_BYTES
from deltaimg.ids import BlockIndexes, RecordNumber, RecordNumbers, SlotNumbers
from deltaimg.kernels import digest_blocks
from deltaimg.repo.record_reader import RecordReader, group_reads

EXPANDED_DEPTH = 1
"""A block that the image no longer has is decoded from the repository if its record's delta depth is at most this. With one
more, a backup of rewritten files takes ten times as long; content of deeper records is kept on this host."""

Blocks = npt.NDArray[np.uint8]
"""A row of bytes each."""


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
        base_image: BaseImage,
    ) -> None:
        """Make one for a backup.

        Args:
            matcher: has the digests of all slots, those of this backup included.
        """
        self._image, self._block_bytes = context.source, context.block_bytes
        self._block_key = context.repository.keys.block
        self._records, self._table, self._reader = records, records.table, reader
        self._matcher, self._contents, self._expanded, self._base_image = matcher, contents, expanded, base_image
        self.image_blocks = ImageBlocks(context.base.runs, records)
        self._room, self._scratch = ThreadBuffer(), ThreadBuffer()
        self._decoded_depth = -1 if context.repository.only_writes else EXPANDED_DEPTH
        self._is_affordable = self._find_affordable()

    def may_have(self, slots: SlotNumbers, records: RecordNumbers) -> Flags:
        """Return whether each slot can be fetched, as far as that can be known before it is tried.

        Args:
            records: of each slot.
        """
        is_available = records >= self._table.record_count
        stored = np.flatnonzero(~is_available)
        is_available[stored] = self._is_affordable[records[stored]]
        others = np.flatnonzero(~is_available)
        if not self._image.is_sequential:
            others_slots = SlotNumbers(slots[others])
            is_available[others] = self.image_blocks.find(others_slots) >= 0
            is_available[others] |= self._base_image.has(self.image_blocks.find_in_base(others_slots))
        is_available[stored] &= self._table.are_there(SlotNumbers(slots[stored]))
        return is_available

    def affordable_depths(self) -> npt.NDArray[np.int64]:
        """Return the delta depth of each stored record whose content is available without the image, -1 for the others."""
        return np.where(self._is_affordable, self._records.stored_depths, -1)

    def look_also_in(self, folders: list[str]) -> None:
        """Read content that backups of other images kept in `folders`, too."""
        for folder in folders:
            self._contents.look_also_in(folder)
        self._is_affordable = self._find_affordable()

    def fetch(self, slots: SlotNumbers) -> Sources | None:
        """Return ascending slots with their bytes, without those that cannot be read; None if none can.

        The bytes are valid until the thread fetches again.
        """
        room = self._room.get(len(slots) * self._block_bytes)
        blocks = np.frombuffer(room, np.uint8, len(slots) * self._block_bytes).reshape(-1, self._block_bytes)
        is_available = self._read(slots, blocks)
        if not is_available.any():
            return None
        if not is_available.all():
            blocks = blocks[is_available]
        return Sources(self._records.describe(SlotNumbers(slots[is_available])), blocks.reshape(-1).data)

    def keep(self, record_id: bytes, depth: int, content: memoryview) -> None:
        """Keep a new delta record's content on this host if the next backup could not afford to decode it."""
        if depth > EXPANDED_DEPTH:
            self._contents.put(record_id, content)

    # -- where bytes come from -----------------------------------------------------------------------------------------

    def _find_affordable(self) -> Flags:
        """Return, for each stored record, whether its content is kept on this host or cheap to decode."""
        is_kept = [
            self._records.id_of(RecordNumber(record)) in self._contents for record in range(self._table.record_count)
        ]
        return (self._records.stored_depths <= self._decoded_depth) | np.array(is_kept, np.bool_)

    def _read(self, slots: SlotNumbers, out: Blocks) -> Flags:
        """Fill `out` with the blocks of slots; return which of them could be read, and are what they should be."""
        is_filled = np.zeros(len(slots), np.bool_)
        if not self._image.is_sequential:
            self._read_image(slots, out, is_filled)
        self._read_base(slots, out, is_filled)
        self._read_expanded(slots, out, is_filled)
        is_available = self._verify(slots, out, is_filled)
        if not np.array_equal(is_available, is_filled):
            # The image has other content there, which the scan had not found yet.
            is_filled = is_available.copy()
            self._read_base(slots, out, is_filled)
            self._read_expanded(slots, out, is_filled)
            is_available = self._verify(slots, out, is_filled)
        self._decode_missing(slots, out, is_available)
        return is_available

    def _read_image(self, slots: SlotNumbers, out: Blocks, is_filled: Flags) -> None:
        """Read what the image should still have."""
        blocks = self.image_blocks.find(slots)
        found = np.flatnonzero(blocks >= 0)
        self._image.reread(ranges_of_blocks(blocks[found], found, self._block_bytes), out.reshape(-1).data)
        is_filled[found] = True

    def _read_base(self, slots: SlotNumbers, out: Blocks, is_filled: Flags) -> None:
        """Read what the image had in the base."""
        missing = np.flatnonzero(~is_filled & ~self._records.is_new(slots))
        blocks = self.image_blocks.find_in_base(SlotNumbers(slots[missing]))
        is_kept = self._base_image.has(blocks)
        found = missing[is_kept]
        is_filled[found] = self._base_image.read(BlockIndexes(blocks[is_kept]), found, out)

    def _verify(self, slots: SlotNumbers, out: Blocks, is_filled: Flags) -> Flags:
        """Return which of the rows that are filled are what they should be."""
        # In one call, with what lies between: to gather them costs as much.
        return is_filled & self._are_equal(out, slots) if is_filled.any() else is_filled

    def _read_expanded(self, slots: SlotNumbers, out: Blocks, is_filled: Flags) -> None:
        """Read what was expanded before."""
        missing, records, within = self._find_missing(slots, is_filled)
        kept = self._expanded.read(records, within, missing, out)
        is_filled[missing[kept]] = True

    def _decode_missing(self, slots: SlotNumbers, out: Blocks, is_available: Flags) -> None:
        """Fill in missing blocks from kept content and from stored records; what cannot be read is left out."""
        missing, records, within = self._find_missing(slots, is_available)
        to_decode = []
        for record in distinct(records).tolist():
            numbers = np.flatnonzero(records == record)
            content = self._read_kept(record, within[numbers], SlotNumbers(slots[missing[numbers]]))
            if content is not None:
                out[missing[numbers]] = content[within[numbers]]
                is_available[missing[numbers]] = True
            elif self._records.stored_depths[record] <= self._decoded_depth:
                to_decode.append(record)
        for record, content in self._expand(RecordNumbers(np.array(to_decode, np.int64))):
            numbers = np.flatnonzero(records == record)
            out[missing[numbers]] = content[within[numbers]]
            is_available[missing[numbers]] = True

    def _find_missing(
        self, slots: SlotNumbers, is_there: Flags
    ) -> tuple[npt.NDArray[np.int64], RecordNumbers, npt.NDArray[np.int64]]:
        """Return numbers of stored slots that are not there, the record of each, and its place in that."""
        missing = np.flatnonzero(~is_there & ~self._records.is_new(slots))
        records = self._table.records_of(SlotNumbers(slots[missing]))
        return missing, records, slots[missing] - self._table.first_slots[records]

    def _read_kept(self, record: RecordNumber, within: npt.NDArray[np.int64], slots: SlotNumbers) -> Blocks | None:
        """Return the blocks of a record from kept content, `slots` of them verified; None if that has not got them.

        They are valid until the thread reads or expands another record.
        """
        # Kept content can only be verified where the record's digests are loaded.
        if not self._table.is_loaded[record]:
            return None
        length = int(self._table.slot_counts[record]) * self._block_bytes
        content = self._scratch.get(MAX_RECORD_BYTES)[:length]
        if not self._contents.read(self._records.id_of(record), content):
            return None
        blocks = self._split(content)
        if not self._are_equal(blocks[within], slots).all():
            return None
        self._expanded.put(record, content)
        return blocks

    def _expand(self, records: RecordNumbers) -> Iterator[tuple[RecordNumber, Blocks]]:
        """Yield those of some stored records that can be read, each with its blocks, which are valid until the next one.

        What lies close together in packs is read together.
        """
        for group in group_reads(self._table, records):
            try:
                fetched = self._reader.fetch(group)
            except DeltaimgError:
                continue
            for record in group.records.tolist():
                try:
                    scratch = self._scratch.get(MAX_RECORD_BYTES)
                    content = self._reader.expand(record, group, fetched, self._gather, scratch)
                except DeltaimgError:
                    continue
                if self._table.is_loaded[record]:
                    self._expanded.put(record, content)
                yield record, self._split(content)

    def _split(self, content: bytes | memoryview) -> Blocks:
        return np.frombuffer(content, np.uint8).reshape(-1, self._block_bytes)

    def _gather(self, record: RecordNumber) -> memoryview:
        """Return the delta sources of a stored record; raises ValueError where they cannot be read."""
        slots = SlotNumbers(expand_ranges(*self._table.source_slots(record)))
        # Not the thread's own memory: that is being filled.
        blocks = np.empty((len(slots), self._block_bytes), np.uint8)
        if not self._read(slots, blocks).all():
            raise ValueError("its delta sources cannot be read")
        return blocks.reshape(-1).data

    def _are_equal(self, blocks: Blocks, slots: SlotNumbers) -> Flags:
        """Return whether each of `blocks`, a row of bytes each, has the digest of its slot."""
        found = digest_blocks(self._block_key, np.ascontiguousarray(blocks).data, self._block_bytes)
        is_equal: Flags = (found == self._matcher.digests[slots]).all(axis=1)
        return is_equal
