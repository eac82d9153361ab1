# SPDX-License-Identifier: Apache-2.0
"""Records for random reads: expanded on demand, with the records that they depend on, the latest kept.

What a delta needs is found before anything is read. Each record of that is expanded once, by ascending delta depth, however
many others depend on it: a chain costs as much as it has records, not as it has paths.

Memory  a budget of expanded records, and those requested together; of their sources the blocks needed, as in `Spool`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

import numpy as np

from deltaimg.arrays import distinct, expand_ranges
from deltaimg.engine.content.source_ranges import SourceReader
from deltaimg.engine.content.spool import Spool
from deltaimg.ids import RecordNumber, RecordNumbers, SlotNumbers
from deltaimg.model import MIB
from deltaimg.repo.record_reader import RecordReader, group_reads
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
        gather: Callable[[RecordNumber], memoryview] | None = None,
    ) -> None:
        """Args: gather: returns what a delta record is encoded against; without it, that is expanded here, too."""
        self._gather = gather
        self._reader, self._table, self._block_bytes = reader, table, block_bytes
        self._kept: OrderedDict[RecordNumber, memoryview] = OrderedDict()
        self._cache_bytes, self._kept_bytes = cache_bytes, 0
        self._lock = threading.Lock()

    def get(self, record: RecordNumber) -> memoryview:
        """Return a record's content; raises StoreError or IntegrityError."""
        content = self._find(record)
        if content is not None:
            return content
        # Not under the lock: others may want other records.
        if self._gather is not None:
            content = self._reader.read(record, self._gather)
            self._keep(record, content)
            return content
        return self._expand([record])[record]

    def get_together(self, records: list[RecordNumber]) -> dict[RecordNumber, memoryview]:
        """Return the content of records, what several of them depend on expanded once; raises as `get`."""
        kept = {record: content for record in records if (content := self._find(record)) is not None}
        if len(kept) == len(records):
            return kept
        if self._gather is None:
            return self._expand(records)
        return kept | self._read([record for record in records if record not in kept], self._gather)

    def _find(self, record: RecordNumber) -> memoryview | None:
        with self._lock:
            if record in self._kept:
                self._kept.move_to_end(record)
            return self._kept.get(record)

    def _keep(self, record: RecordNumber, content: memoryview) -> None:
        """Keep content, which may lie in bytes that were fetched for other records as well."""
        with self._lock:
            if record not in self._kept:
                self._kept[record] = content
                self._kept_bytes += len(content)
            while self._kept_bytes > self._cache_bytes and len(self._kept) > 1:
                self._kept_bytes -= len(self._kept.popitem(last=False)[1])

    def _read(
        self, records: list[RecordNumber], gather: Callable[[RecordNumber], memoryview]
    ) -> dict[RecordNumber, memoryview]:
        """Expand records whose sources are there already; those that are near each other are fetched together."""
        found: dict[RecordNumber, memoryview] = {}
        for group in group_reads(self._table, RecordNumbers(np.array(records, np.int64))):
            fetched = self._reader.fetch(group)
            for each in group.records.tolist():
                found[each] = self._reader.expand(each, group, fetched, gather)
                self._keep(each, found[each])
        return found

    def _expand(self, records: list[RecordNumber]) -> dict[RecordNumber, memoryview]:
        """Expand records, and before them those that they need; what is kept is taken as it is."""
        missing, found, needed_slots = self._plan(records)
        depths = self._table.depths_of(missing)
        wanted = {record: found[record] for record in records if record in found}
        spool = Spool(needed_slots, self._block_bytes)
        sources = SourceReader(self._table, spool, self._block_bytes)
        try:
            for each, content in found.items():
                spool.put(int(self._table.first_slots[each]), content)
            found.clear()
            for depth in distinct(depths):
                for group in group_reads(self._table, missing[depths == depth]):
                    fetched = self._reader.fetch(group)
                    for each in group.records.tolist():
                        content = self._reader.expand(each, group, fetched, sources.read)
                        spool.put(int(self._table.first_slots[each]), content)
                        self._keep(each, content)
                        if each in records:
                            wanted[each] = content
        finally:
            spool.close()
        return wanted

    def _plan(self, records: list[RecordNumber]) -> tuple[RecordNumbers, dict[RecordNumber, memoryview], SlotNumbers]:
        """Return which records are to be expanded, what is kept of others that are needed, and the slots that deltas need."""
        missing: set[RecordNumber] = set()
        found: dict[RecordNumber, memoryview] = {}
        waiting, slots = list(records), [np.empty(0, np.int64)]
        while waiting:
            record = waiting.pop()
            if record in missing or record in found:
                continue
            kept = self._find(record)
            if kept is not None:
                found[record] = kept
                continue
            missing.add(record)
            firsts, counts = self._table.source_slots(record)
            slots.append(expand_ranges(firsts, counts))
            waiting += distinct(self._table.records_of(firsts)).tolist()
        return RecordNumbers(np.array(sorted(missing), np.int64)), found, SlotNumbers(distinct(*slots))
