# SPDX-License-Identifier: Apache-2.0
"""Reads of a snapshot at any offset.

Memory  what is asked for, and up to 64 expanded records besides the cache.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import numpy as np

from deltaimg.arrays import FIRST_SLOT, Runs, clip_runs
from deltaimg.engine.content.record_cache import RecordCache
from deltaimg.errors import ContentDamaged, IntegrityError, ObjectNotFound, UsageError
from deltaimg.model import DamagedExtent
from deltaimg.repo.numbering import cut_at_records

if TYPE_CHECKING:
    from deltaimg.engine.content.snapshot import SnapshotContent
    from deltaimg.repo.lock import ReaderLock

_READ_TOGETHER = 64
"""Records that a read expands and holds at once."""


class SnapshotReader:
    """Reads a snapshot at any offset; any number of threads may use one. A context manager, for `open_snapshot`'s lock."""

    def __init__(self, content: SnapshotContent, cache: RecordCache) -> None:
        self._content, self._cache = content, cache
        self._lock: ReaderLock | None = None
        self._finalizer: weakref.finalize[[], SnapshotReader] | None = None

    def __enter__(self) -> SnapshotReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def hold(self, lock: ReaderLock) -> None:
        """Hold a lock that is taken until the reader is closed or nobody has it any more."""
        self._lock = lock
        self._finalizer = weakref.finalize(self, lock.release)

    def close(self) -> None:
        """Release the lock, so that a prune may delete what was read."""
        if self._finalizer is not None:
            self._finalizer()

    @property
    def size_bytes(self) -> int:
        return self._content.manifest.size_bytes

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`, fewer only at the end of the image; every block is proven.

        Raises:
            UsageError: a negative offset or length. IntegrityError, StoreError: what is asked for cannot be read. LockLost: it
            may have been deleted since the reader's lock was removed.
        """
        return self._read(offset, length, None)

    def read_what_is_left(self, offset: int, length: int) -> tuple[bytes, list[DamagedExtent]]:
        """Return the same with zeros where it cannot be read, and which extents those are; raises StoreError for others."""
        damage: list[DamagedExtent] = []
        return self._read(offset, length, damage), sorted(damage, key=lambda extent: extent.start)

    def _read(self, offset: int, length: int, damage: list[DamagedExtent] | None) -> bytes:
        if offset < 0 or length < 0:
            raise UsageError(f"cannot read {length} bytes at {offset}")
        end = min(offset + length, self.size_bytes)
        if end <= offset:
            return b""
        block = self._content.manifest.block_bytes
        first, last = offset // block, -(-end // block)
        buffer = memoryview(bytearray((last - first) * block))
        clipped = clip_runs(self._content.runs, first, last)
        table = self._content.table
        data = clipped[clipped["slot"] >= FIRST_SLOT]
        pieces = cut_at_records(table, data, self._content.manifest.object_name)
        pieces = pieces[np.argsort(pieces["slot"], kind="stable")]
        records, starts = np.unique(table.records_of(pieces["slot"]), return_index=True)
        bounds = [*starts.tolist(), len(pieces)]
        contents: dict[int, memoryview] = {}
        for number, record in enumerate(records.tolist()):
            if number % _READ_TOGETHER == 0:
                contents = self._get_together(records[number : number + _READ_TOGETHER].tolist())
            of_record = pieces[bounds[number] : bounds[number + 1]]
            try:
                content = contents[record] if record in contents else self._cache.get(record)
            except (IntegrityError, ObjectNotFound) as error:
                if self._lock is not None:
                    self._lock.check()
                if damage is None:
                    extent = self._content.extents_of(record)[0]
                    damaged = DamagedExtent(extent.start, extent.end, str(error))
                    raise ContentDamaged(self._content.manifest.label, (damaged,)) from error
                damage += [
                    DamagedExtent(at * block, min((at + count) * block, end), str(error))
                    for at, count, _ in of_record.tolist()
                ]
                continue
            self._place(of_record, int(table.first_slots[record]), content, buffer, first)
        return bytes(buffer[offset - first * block : end - first * block])

    def _place(self, pieces: Runs, first_slot: int, content: memoryview, buffer: memoryview, first_block: int) -> None:
        """Copy the pieces that a record supplies into a buffer that begins at `first_block`."""
        block = self._content.manifest.block_bytes
        for at, count, slot in pieces.tolist():
            within, start = (slot - first_slot) * block, (at - first_block) * block
            buffer[start : start + count * block] = content[within : within + count * block]

    def _get_together(self, records: list[int]) -> dict[int, memoryview]:
        """Return the content of records; of none, if one of them cannot be read: then each is asked for by itself."""
        try:
            return self._cache.get_together(records)
        except (IntegrityError, ObjectNotFound):
            return {}
