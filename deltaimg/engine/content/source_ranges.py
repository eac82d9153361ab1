# SPDX-License-Identifier: Apache-2.0
"""The blocks that delta records are encoded against, read from the image as far as it was written, else from the spool.

Where they lie is found for many records at once: a call of numpy costs as much for one of them as for a hundred.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.arrays import Ranges, expand_ranges, ranges_of_blocks
from deltaimg.engine.content.spool import Spool
from deltaimg.engine.content.walk_plan import FindBlocks
from deltaimg.engine.pipeline import ThreadBuffer
from deltaimg.ids import RecordNumber, RecordNumbers, SlotNumbers
from deltaimg.model import MIB
from deltaimg.repo.slots import SlotTable

ReadBack = Callable[[Ranges, memoryview], None]
"""Fills parts of memory with bytes of the image that were placed before."""


class _SourceRanges(Struct, frozen=True):
    """The sources of one record: their bytes, of which some ranges are in the image and the others in the spool."""

    length: int
    placed: Ranges
    kept: Ranges


class SourceReader:
    """Reads the sources of delta records; any number of threads may use one."""

    def __init__(
        self,
        table: SlotTable,
        spool: Spool,
        block_bytes: int,
        *,
        find_blocks: FindBlocks | None = None,
        read_back: ReadBack | None = None,
    ) -> None:
        """Args: find_blocks, read_back: both or neither; without them all sources are in the spool."""
        self._table, self._spool, self._block_bytes = table, spool, block_bytes
        self._find_blocks, self._read_back = find_blocks, read_back
        self._scratch = ThreadBuffer()

    def locate(self, records: RecordNumbers) -> Callable[[RecordNumber], memoryview]:
        """Find the sources of `records`; return what gives those of each, in memory that the thread's next call takes again."""
        found = self._find_ranges(records)
        return lambda record: self._read(found[record])

    def read(self, record: RecordNumber) -> memoryview:
        """Return the sources of one record, in memory of their own."""
        (ranges,) = self._find_ranges(RecordNumbers(np.array([record], np.int64))).values()
        return self._fill(ranges, memoryview(bytearray(ranges.length)))

    def _read(self, ranges: _SourceRanges) -> memoryview:
        return self._fill(ranges, self._scratch.get(max(ranges.length, MIB))[: ranges.length])

    def _fill(self, ranges: _SourceRanges, content: memoryview) -> memoryview:
        if len(ranges.placed) and self._read_back:
            self._read_back(ranges.placed, content)
        if len(ranges.kept):
            self._spool.read(ranges.kept, content)
        return content

    def _find_ranges(self, records: RecordNumbers) -> dict[RecordNumber, _SourceRanges]:
        """Return the ranges for each of `records` that is a delta."""
        deltas, counts = self._table.count_sources(records)
        if not len(deltas):
            return {}
        slots = expand_ranges(*self._table.source_slots(deltas))
        blocks = (
            np.full(len(slots), -1, np.int64) if self._find_blocks is None else self._find_blocks(SlotNumbers(slots))
        )
        # A gap of one before each record's, so that no range reaches from one into the next.
        numbers = np.arange(len(deltas))
        bases = np.cumsum(counts) - counts + numbers
        places = np.arange(len(slots)) + np.repeat(numbers, counts)
        placed, kept = np.flatnonzero(blocks >= 0), np.flatnonzero(blocks < 0)
        parts = (
            self._cut(blocks[placed], places[placed], bases),
            self._cut(self._spool.find(SlotNumbers(slots[kept])), places[kept], bases),
        )
        lengths = (counts * self._block_bytes).tolist()
        return {
            record: _SourceRanges(length, *ranges)
            for record, length, *ranges in zip(deltas.tolist(), lengths, *parts, strict=True)
        }

    def _cut(
        self, blocks: npt.NDArray[np.signedinteger[Any]], places: npt.NDArray[np.int64], bases: npt.NDArray[np.int64]
    ) -> list[Ranges]:
        """Return the ranges that bring `blocks` to their places, for each record by itself and counted from its base."""
        ranges = ranges_of_blocks(blocks, places, self._block_bytes)
        starts = bases.astype(np.uint64) * np.uint64(self._block_bytes)
        cuts = np.append(np.searchsorted(ranges["start"], starts), len(ranges))
        ranges["start"] -= np.repeat(starts, np.diff(cuts))
        bounds = cuts.tolist()
        return [ranges[first:last] for first, last in pairwise(bounds)]
