# SPDX-License-Identifier: Apache-2.0
"""Reads of a snapshot at any offset, as servers of block devices (NBD, FUSE) need them.

Reads      the records that a read needs, through the cache; nothing for `extents`.
Memory     8 bytes a run of the map, the cache, and for each read up to 64 expanded records.
Invariant  any number of threads may read at once: what is shared is either never changed or, the cache, under a lock.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Final, Protocol

import numpy as np
from msgspec import Struct

from deltaimg.arrays import FIRST_SLOT, Runs, clip_runs, group_by
from deltaimg.engine.content.record_cache import RecordCache
from deltaimg.errors import ContentDamaged, IntegrityError, ObjectNotFound, StoreError, UsageError
from deltaimg.format.manifest import Manifest
from deltaimg.ids import RecordNumber
from deltaimg.image.extents import ExtentStatus, ImageExtent
from deltaimg.kernels.layout import Buffer
from deltaimg.model import DamagedExtent, Extent
from deltaimg.repo.lock import ReaderLock
from deltaimg.repo.pack_reader import is_bad_sector
from deltaimg.repo.slots import SlotTable

_READ_TOGETHER = 64
"""Records that a read expands and holds at once."""
_STATUS_OF_SLOT: Final = np.array([ExtentStatus.HOLE, ExtentStatus.ZERO, ExtentStatus.DATA], np.uint8)
"""By slot; all data slots have the status of the first."""


class ReadableContent(Protocol):
    """What a reader asks of an opened snapshot."""

    manifest: Manifest
    table: SlotTable
    runs: Runs
    """The map of the image."""

    def extents_of(self, record: RecordNumber) -> list[Extent]:
        """Return the extents of the image that a record supplies, in the order of its slots."""
        ...


class SnapshotReader:
    """Reads a snapshot at any offset; any number of threads may use one. A context manager, for `open_snapshot`'s lock.

    A read of any size and alignment is right; one that begins and ends with records is the cheapest, since records are expanded
    whole, and the latest are kept.
    """

    def __init__(self, content: ReadableContent, cache: RecordCache) -> None:
        self._content, self._cache = content, cache
        self._first_blocks = np.ascontiguousarray(content.runs["first_block"])
        self._lock: ReaderLock | None = None
        self._finalizer: weakref.finalize[[], SnapshotReader] | None = None

    def __enter__(self) -> SnapshotReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def hold(self, lock: ReaderLock) -> None:
        """Hold a lock that is taken until the reader is closed or garbage-collected."""
        self._lock = lock
        self._finalizer = weakref.finalize(self, lock.release)

    def close(self) -> None:
        """Release the lock, so that a prune may delete what was read, and forget what was kept."""
        self._cache.close()
        if self._finalizer is not None:
            self._finalizer()

    @property
    def size_bytes(self) -> int:
        """The size of the image."""
        return self._content.manifest.size_bytes

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`, fewer only at the end of the image; every block is verified.

        Raises:
            UsageError: a negative offset or length. IntegrityError, StoreError: what is asked for cannot be read. LockLost: it
            may have been deleted since the reader's lock was removed.
        """
        buffer = self._allocate(offset, length)
        self._fill(offset, buffer, None, is_zeroed=True)
        return bytes(buffer)

    def read_into(self, offset: int, buffer: Buffer) -> int:
        """Fill `buffer` from `offset` and return how many bytes there were, fewer only at the end of the image.

        Every block is verified. Bytes are copied once, from the expanded record to `buffer`, which is not kept; what is in it
        after an error, or beyond the end of the image, is not defined.

        Args:
            buffer: writable and contiguous, such as a bytearray, an mmap or a numpy array.

        Raises:
            UsageError: a negative offset, or a buffer that cannot be written to. Other errors: as `read`.
        """
        try:
            view = memoryview(buffer).cast("B")
        except TypeError as error:
            raise UsageError(f"cannot read into this buffer: {error}") from error
        if view.readonly:
            raise UsageError("cannot read into a read-only buffer")
        return self._fill(offset, view, None)

    def read_what_is_left(self, offset: int, length: int) -> tuple[bytes, list[DamagedExtent]]:
        """Return the same as `read` with zeros where it cannot be read, and which extents those are; raises StoreError."""
        damage: list[DamagedExtent] = []
        buffer = self._allocate(offset, length)
        self._fill(offset, buffer, damage, is_zeroed=True)
        return bytes(buffer), sorted(damage)

    def extents(self, start: int = 0, end: int | None = None) -> Iterator[ImageExtent]:
        """Yield what the snapshot holds of bytes [start, end): data, holes and zeros; nothing is read from the store.

        They ascend without a gap, neighbours have different statuses; the first begins at `start`, and the last ends at `end`,
        or with the image where that is earlier.

        Raises:
            UsageError: a negative start, or an end before it.
        """
        end = self.size_bytes if end is None else end
        if not 0 <= start <= end:
            raise UsageError(f"bytes {start} to {end} are no part of an image")
        return self._find_extents(start, min(end, self.size_bytes))

    def _find_extents(self, start: int, end: int) -> Iterator[ImageExtent]:
        if end <= start:
            return
        runs = self._find_runs(start, end)
        statuses = _STATUS_OF_SLOT[np.minimum(runs["slot"], FIRST_SLOT)]
        firsts = np.flatnonzero(np.concatenate(([True], statuses[1:] != statuses[:-1])))
        starts = (runs["first_block"][firsts] * np.uint64(self._content.manifest.block_bytes)).tolist()
        starts[0] = start
        for at, stop, status in zip(starts, [*starts[1:], end], statuses[firsts].tolist(), strict=True):
            yield ImageExtent(at, stop, ExtentStatus(status))

    def _allocate(self, offset: int, length: int) -> memoryview:
        """Return memory for what the image has of `length` bytes from `offset`."""
        if offset < 0 or length < 0:
            raise UsageError(f"cannot read {length} bytes at {offset}")
        return memoryview(bytearray(max(0, min(length, self.size_bytes - offset))))

    def _fill(
        self, offset: int, buffer: memoryview, damage: list[DamagedExtent] | None, *, is_zeroed: bool = False
    ) -> int:
        """Fill a buffer; note what cannot be read in `damage` and make it zeros, or raise if that is None.

        Args:
            is_zeroed: the buffer is all zeros.
        """
        if offset < 0:
            raise UsageError(f"cannot read {len(buffer)} bytes at {offset}")
        end = min(offset + len(buffer), self.size_bytes)
        if end <= offset:
            return 0
        window = _Window(offset, buffer[: end - offset], self._content.manifest.block_bytes, is_zeroed)
        runs = self._find_runs(offset, end)
        is_data = runs["slot"] >= FIRST_SLOT
        for first, count, _ in runs[~is_data].tolist():
            window.clear(first, count)
        groups = self._group_by_record(runs[is_data])
        for start in range(0, len(groups), _READ_TOGETHER):
            together = groups[start : start + _READ_TOGETHER]
            contents = self._get_together([record for record, _ in together])
            for record, pieces in together:
                try:
                    content = contents[record] if record in contents else self._cache.get(record)
                except (IntegrityError, StoreError) as error:
                    if not _is_damage(error):
                        raise
                    if self._lock is not None:
                        self._lock.check()
                    if damage is None:
                        raise self._describe_damage(record, error) from error
                    damage += [window.clear_damaged(first, count, str(error)) for first, count, _ in pieces.tolist()]
                    continue
                window.copy(pieces, content, int(self._content.table.first_slots[record]))
        return end - offset

    def _find_runs(self, start: int, end: int) -> Runs:
        """Return the runs of the map in the blocks that bytes [start, end), not empty, touch: two binary searches."""
        block = self._content.manifest.block_bytes
        first, last = start // block, -(-end // block)
        low = int(np.searchsorted(self._first_blocks, np.uint64(first), side="right")) - 1
        high = int(np.searchsorted(self._first_blocks, np.uint64(last), side="left"))
        return clip_runs(self._content.runs[max(0, low) : high], first, last)

    def _group_by_record(self, runs: Runs) -> list[tuple[RecordNumber, Runs]]:
        """Return each record that data runs are in, and the pieces of them that it supplies, none across two records."""
        table = self._content.table
        pieces = table.cut_at_records(runs, self._content.manifest.object_name)
        pieces = pieces[np.argsort(pieces["slot"], kind="stable")]
        return [(RecordNumber(record), pieces[places]) for record, places in group_by(table.records_of(pieces["slot"]))]

    def _get_together(self, records: list[RecordNumber]) -> dict[RecordNumber, memoryview]:
        """Return the content of records; of none, if one of them cannot be read: then each is read by itself."""
        try:
            return self._cache.get_together(records)
        except (IntegrityError, StoreError) as error:
            if not _is_damage(error):
                raise
            return {}

    def _describe_damage(self, record: RecordNumber, error: IntegrityError | StoreError) -> ContentDamaged:
        """Return the error that names the first extent of the image that needs a record which cannot be read."""
        extent = self._content.extents_of(record)[0]
        damaged = DamagedExtent(extent.start, extent.end, str(error))
        return ContentDamaged(self._content.manifest.label, (damaged,))


def _is_damage(error: IntegrityError | StoreError) -> bool:
    """Return whether an error is about what was to be read: a store that cannot be reached says nothing of that."""
    return isinstance(error, IntegrityError | ObjectNotFound) or is_bad_sector(error)


class _Window(Struct, frozen=True):
    """Memory for the bytes of an image from `offset` on; blocks that are partly outside of it are cut."""

    offset: int
    buffer: memoryview
    block_bytes: int
    is_zeroed: bool
    """Whether what is not copied is zeros anyway."""

    def copy(self, pieces: Runs, content: memoryview, first_slot: int) -> None:
        """Copy what a record supplies, from its content, whose first block has `first_slot`, to where it belongs."""
        buffer, block_bytes, offset, length = self.buffer, self.block_bytes, self.offset, len(self.buffer)
        for first_block, block_count, slot in pieces.tolist():
            start, within = first_block * block_bytes - offset, (slot - first_slot) * block_bytes
            end = min(start + block_count * block_bytes, length)
            if start < 0:
                start, within = 0, within - start
            buffer[start:end] = content[within : within + end - start]

    def clear(self, first_block: int, block_count: int) -> None:
        """Make blocks zeros."""
        if self.is_zeroed:
            return
        start, end = self._clip(first_block, block_count)
        np.frombuffer(self.buffer, np.uint8)[start - self.offset : end - self.offset] = 0

    def clear_damaged(self, first_block: int, block_count: int, reason: str) -> DamagedExtent:
        """Make blocks zeros, and return them as an extent."""
        self.clear(first_block, block_count)
        return DamagedExtent(*self._clip(first_block, block_count), reason)

    def _clip(self, first_block: int, block_count: int) -> tuple[int, int]:
        """Return [start, end) in bytes of the image of the part of some blocks that is inside."""
        start, end = first_block * self.block_bytes, (first_block + block_count) * self.block_bytes
        return max(start, self.offset), min(end, self.offset + len(self.buffer))
