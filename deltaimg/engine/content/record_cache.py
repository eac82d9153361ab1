# SPDX-License-Identifier: Apache-2.0
"""Records for random reads: expanded on demand, with the records that they depend on, the latest kept.

What a delta needs is found before anything is read. Each record of that is expanded once, by ascending delta depth, however
many others depend on it: a chain costs as much as it has records, not as it has paths. With a spool it costs that once in all:
blocks that deltas of the snapshot need stay there from when their record is first expanded.

Memory  a budget of expanded records, and those requested together; of their sources the blocks needed, as in `Spool`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from deltaimg.arrays import distinct, expand_ranges
from deltaimg.engine.content.source_ranges import SourceReader
from deltaimg.engine.content.spool import KeptSlots, Spool, find_source_slots
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
        spool: Spool | None = None,
    ) -> None:
        """Args: spool: for the sources of all records that will be asked for; without it, they are forgotten each time."""
        self._reader, self._table, self._block_bytes = reader, table, block_bytes
        self._spool = spool
        self._kept: OrderedDict[RecordNumber, memoryview] = OrderedDict()
        self._cache_bytes, self._kept_bytes = cache_bytes, 0
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the spool; nothing can be expanded any more."""
        if self._spool is not None:
            self._spool.close()

    def get(self, record: RecordNumber) -> memoryview:
        """Return a record's content; raises StoreError or IntegrityError."""
        return self.get_together([record])[record]

    def get_together(self, records: list[RecordNumber]) -> dict[RecordNumber, memoryview]:
        """Return the content of records, what several of them depend on expanded once; raises as `get`."""
        found = {record: content for record in records if (content := self._find(record)) is not None}
        missing = [record for record in records if record not in found]
        # Not under the lock: others may want other records.
        return found | self._expand(missing) if missing else found

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

    def _expand(self, records: list[RecordNumber]) -> dict[RecordNumber, memoryview]:
        """Expand records, and before them those that they need and whose blocks are not in the spool."""
        wanted: dict[RecordNumber, memoryview] = {}
        with self._open_spool(records) as spool:
            missing = self._find_missing(records, spool)
            depths = self._table.depths_of(missing)
            sources = SourceReader(self._table, spool, self._block_bytes)
            for depth in distinct(depths):
                for group in group_reads(self._table, missing[depths == depth]):
                    fetched, read_sources = self._reader.fetch(group), sources.locate(group.records)
                    for each in group.records.tolist():
                        content = self._reader.expand(each, group, fetched, read_sources)
                        spool.put(int(self._table.first_slots[each]), content)
                        self._keep(each, content)
                        if each in records:
                            wanted[each] = content
        return wanted

    @contextmanager
    def _open_spool(self, records: list[RecordNumber]) -> Iterator[Spool]:
        """Give the spool, or one for these records only."""
        if self._spool is not None:
            yield self._spool
            return
        closure = self._table.add_sources(RecordNumbers(np.array(records, np.int64)))
        spool = Spool(KeptSlots.apart(find_source_slots(self._table, closure)), self._block_bytes)
        try:
            yield spool
        finally:
            spool.close()

    def _find_missing(self, records: list[RecordNumber], spool: Spool) -> RecordNumbers:
        """Return which records are to be expanded, `records` among them; what is kept of their sources goes to the spool."""
        missing: set[RecordNumber] = set()
        waiting = list(records)
        while waiting:
            record = waiting.pop()
            if record in missing:
                continue
            kept = None if record in records else self._find(record)
            if kept is not None:
                spool.put(int(self._table.first_slots[record]), kept)
                continue
            missing.add(record)
            slots = SlotNumbers(expand_ranges(*self._table.source_slots(record)))
            waiting += distinct(self._table.records_of(slots[~spool.has(slots)])).tolist()
        return RecordNumbers(np.array(sorted(missing), np.int64))
