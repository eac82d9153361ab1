# SPDX-License-Identifier: Apache-2.0
"""Records for random reads: expanded one by one, a delta's sources first, the latest kept.

Memory  a budget of expanded records, and the sources of one delta for each level of a chain of deltas being expanded.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from deltaimg.model import MIB
from deltaimg.repo.record_reader import RecordReader
from deltaimg.repo.slots import SlotTable

CACHE_BYTES = 128 * MIB


class RecordCache:
    """Gives the content of any record; any number of threads may use one."""

    def __init__(
        self,
        reader: RecordReader,
        table: SlotTable,
        block_bytes: int,
        cache_bytes: int = CACHE_BYTES,
        gather: Callable[[int], memoryview] | None = None,
    ) -> None:
        """Args: gather: returns what a delta record is encoded against; without it, that is expanded here, too."""
        self._gather = gather
        self._reader, self._table, self._block_bytes = reader, table, block_bytes
        self._kept: OrderedDict[int, memoryview] = OrderedDict()
        self._cache_bytes, self._kept_bytes = cache_bytes, 0
        self._lock = threading.Lock()

    def get(self, record: int) -> memoryview:
        """Return a record's content; raises StoreError or IntegrityError."""
        with self._lock:
            if record in self._kept:
                self._kept.move_to_end(record)
                return self._kept[record]
        # Not under the lock: others may want other records, and the sources of this one come through here as well. What
        # the reader gives back may lie in the bytes that it fetched, which are not worth keeping for one record's sake.
        content = self._reader.read(record, self._gather or self._expand_sources)
        with self._lock:
            if record not in self._kept:
                self._kept[record] = content
                self._kept_bytes += len(content)
            while self._kept_bytes > self._cache_bytes and len(self._kept) > 1:
                self._kept_bytes -= len(self._kept.popitem(last=False)[1])
        return content

    def _expand_sources(self, record: int) -> memoryview:
        """Return the blocks that a record is encoded against."""
        first_slots, counts = self._table.source_slots(record)
        records = self._table.records_of(first_slots)
        parts = []
        for source, first, count in zip(records.tolist(), first_slots.tolist(), counts.tolist(), strict=True):
            start = (first - int(self._table.first_slots[source])) * self._block_bytes
            parts.append(self.get(source)[start : start + count * self._block_bytes])
        return memoryview(b"".join(parts))
