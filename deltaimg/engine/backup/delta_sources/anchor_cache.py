# SPDX-License-Identifier: Apache-2.0
"""The anchors of an image's stored content, kept on this host from one backup to the next.

A file holds the table and the list of records whose blocks it labels. It is a hint: delta sources are verified before they are
used, so a file that is missing, stale or damaged makes one backup's deltas larger, or costs a pass over the image, no more.

    file   := header table ids slots
    header := 8 bytes magic, u32 version, u32 shift, u32 block_bytes, u32 zero, u64 bucket_count, u64 record_count,
              16 bytes repository id, u64 zero
    table  := bucket_count times 64 bytes
    ids    := record_count times a 16-byte record id
    slots  := record_count times u16

Memory  the table.
"""

from __future__ import annotations

import os
import secrets
import struct
from collections.abc import Callable
from contextlib import suppress
from io import BufferedReader

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import DIGEST_BYTES, FIRST_SLOT, Digests, Runs, Slots
from deltaimg.delta.anchors import Anchors, plan_table
from deltaimg.engine.pipeline import OrderedPool, ThreadBuffer
from deltaimg.engine.progress import Progress, stage
from deltaimg.engine.scan import SPAN_BYTES, count_span_bytes, split_spans
from deltaimg.errors import OutOfResources
from deltaimg.ids import RecordNumbers, SlotNumbers
from deltaimg.image.extents import Bounds
from deltaimg.image.source import ImageSource
from deltaimg.kernels import expand_runs
from deltaimg.kernels.layout import BUCKET_PLACES, AnchorNames, AnchorTable, Buffer
from deltaimg.large_files import write_large
from deltaimg.repo.slots import SlotTable
from deltaimg.threads import Workers, start_thread

_HEADER = struct.Struct("<8sIIIIQQ16sQ")
_MAGIC = b"\x8bDIMGANC"
_VERSION = 1
_MAX_LABEL = 2**32 - 2**28
_MOST_OUTGROWN = 4


class AnchorCache:
    """Anchors under labels: each record in it has labels for its slots, one after another from 1 on."""

    def __init__(
        self,
        anchors: Anchors,
        ids: Digests,
        slot_counts: npt.NDArray[np.int64],
        block_bytes: int,
        wait: Callable[[], None] = lambda: None,
    ) -> None:
        """Args: wait: returns once the table is filled."""
        self._anchors, self._wait = anchors, wait
        self._ids, self._slot_counts = ids, slot_counts
        self._first_labels = 1 + np.cumsum(slot_counts) - slot_counts
        self._next_label = self._end_label = 1 + int(slot_counts.sum())
        self._records = np.full(len(ids), -1, np.int64)
        self._first_slots = np.zeros(len(ids), np.int64)
        self._first_new_slot = 0
        self._block_bytes = block_bytes

    @property
    def table_bytes(self) -> int:
        """Size of the table in memory."""
        return self._anchors.table.nbytes

    @property
    def is_full(self) -> bool:
        """Whether labels run out, after 16 TiB of new blocks of 4 KiB."""
        return self._next_label > _MAX_LABEL

    def collect(self, content: Buffer) -> tuple[AnchorNames, Slots]:
        """Return names and positions of the anchors of `content`."""
        return self._anchors.collect(content)

    def find(self, names: AnchorNames) -> Slots:
        """Return a label for each name, 0 for one that is not known."""
        self._wait()
        return self._anchors.find(names)

    def remember(self, names: AnchorNames, labels: Slots) -> None:
        """Enter a label for each name."""
        self._wait()
        self._anchors.remember(names, labels)

    def add_records(self, table: SlotTable) -> None:
        """Add the records that have labels to `table`, so that what the image once had may be a delta source."""
        entries, index = table.index.find(self._ids), table.index
        entries = entries[entries >= 0]
        is_usable = ~(index.is_pending | index.is_lost)[entries] & (index.links.depths[entries] >= 0)
        table.add_entries(entries[is_usable])

    def number_slots(self, table: SlotTable, first_new_slot: int) -> None:
        """Find the slots of the labels in this run; new records continue both labels and slots."""
        records = table.find_records(self._ids)
        is_usable = records >= 0
        is_usable[is_usable] = table.slot_counts[records[is_usable]] == self._slot_counts[is_usable]
        self._records = np.where(is_usable, records, -1)
        self._first_slots = np.zeros(len(records), np.int64)
        self._first_slots[is_usable] = table.first_slots[records[is_usable]]
        self._first_new_slot = first_new_slot

    def numbered_records(self) -> RecordNumbers:
        """Return the numbers of the records with labels that the slot table has."""
        return RecordNumbers(self._records[self._records >= 0])

    def slots_of(self, labels: Slots) -> SlotNumbers:
        """Return the slot of each label, 0 where there is none, as for what a damaged file makes up."""
        wanted = labels.astype(np.int64)
        is_new = (wanted >= self._next_label) & (wanted < self._end_label)
        slots = np.where(is_new, wanted - self._next_label + self._first_new_slot, 0)
        known = np.flatnonzero((wanted > 0) & (wanted < self._next_label))
        if len(known):
            records = np.searchsorted(self._first_labels, wanted[known], side="right") - 1
            firsts = self._first_slots[records]
            slots[known] = np.where(firsts > 0, firsts + wanted[known] - self._first_labels[records], 0)
        return SlotNumbers(slots)

    def label_new(self, slots: npt.NDArray[np.integer]) -> Slots:
        """Return the labels of slots of new records."""
        labels = slots.astype(np.int64) - self._first_new_slot + self._next_label
        self._end_label = max(self._end_label, int(labels.max(initial=0)) + 1)
        return labels.astype(np.uint32)

    def has_most_of(self, ids: Digests) -> bool:
        """Return whether more than half of these records have labels."""
        known = {each.tobytes() for each in self._ids}
        return 2 * sum(each.tobytes() in known for each in ids) >= len(ids)

    def learn_image(
        self, source: ImageSource, to_read: Bounds, base_runs: Runs, table: SlotTable, *, progress: Progress
    ) -> None:
        """Read the image and remember the anchors of what it has where the base has data.

        What has changed since is labelled as what the base has there: a guess, which is verified when the block is read.
        """
        records = table.used_records(base_runs)
        self._ids, self._slot_counts = table.record_ids[records], table.slot_counts[records]
        self._first_labels = 1 + np.cumsum(self._slot_counts) - self._slot_counts
        self._next_label = self._end_label = 1 + int(self._slot_counts.sum())
        shifts = np.zeros(table.record_count, np.int64)
        shifts[records] = self._first_labels - table.first_slots[records]
        buffers = ThreadBuffer()
        span_bytes = max(SPAN_BYTES, self._block_bytes)

        def collect(span: tuple[int, int]) -> tuple[AnchorNames, Slots, int]:
            start, end = span
            content = buffers.get(span_bytes)[: end - start]
            got = source.read_into(start, content) // self._block_bytes * self._block_bytes
            names, positions = self.collect(content[:got])
            slots = expand_runs(base_runs, start // self._block_bytes, got // self._block_bytes).astype(np.int64)
            labels = np.where(slots >= FIRST_SLOT, slots + shifts[np.maximum(table.records_of(slots), 0)], 0)
            return names, labels.astype(np.uint32)[positions // self._block_bytes], end - start

        with stage(progress, "building the similarity index", count_span_bytes(to_read)), OrderedPool() as pool:
            for names, labels, read_bytes in pool.map(collect, split_spans(to_read, span_bytes)):
                self.remember(names, labels)
                progress.advance(read_bytes)

    def begin_saving(
        self, path: str, repository_id: str, new_ids: Digests, new_counts: npt.NDArray[np.int64]
    ) -> AnchorFile:
        """Begin to write what is to replace the file at `path`, the records of this run added. None is added any more."""
        ids = np.concatenate((self._ids, new_ids))
        counts = np.concatenate((self._slot_counts, new_counts)).astype("<u2")
        self._wait()
        table = self._anchors.table
        header = _HEADER.pack(
            _MAGIC,
            _VERSION,
            self._anchors.shift,
            self._block_bytes,
            0,
            len(table) // BUCKET_PLACES,
            len(ids),
            bytes.fromhex(repository_id),
            0,
        )
        return AnchorFile(path, (header, table.data, ids.tobytes(), counts.tobytes()))


class AnchorFile:
    """A file under a temporary name, which a thread writes while the snapshot is being committed; a context manager."""

    def __init__(self, path: str, parts: tuple[bytes | memoryview, ...]) -> None:
        self._path, self._temporary, self._parts = path, f"{path}.{secrets.token_hex(4)}", parts
        self._workers = Workers(1, "deltaimg-anchors")
        self._written = self._workers.submit(self._write)

    def __enter__(self) -> AnchorFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._workers.close()
        with suppress(OSError):
            os.unlink(self._temporary)

    def put(self) -> None:
        """Give the file its name once it is written; raises OSError."""
        self._written.result()
        os.replace(self._temporary, self._path)

    def _write(self) -> None:
        os.makedirs(os.path.dirname(self._path), 0o700, exist_ok=True)
        with open(self._temporary, "xb", buffering=0) as file:
            write_large(file.fileno(), self._parts)


def open_anchor_cache(
    path: str | None, repository_id: str, *, block_bytes: int, content_bytes: int, budget_bytes: int
) -> tuple[AnchorCache, bool]:
    """Return the cache kept at `path`, or a new one, and whether it is new.

    Args:
        content_bytes: how much the image holds: what a new table is laid out for.
    """
    buckets, shift = plan_table(content_bytes, budget_bytes)
    if path is not None and (kept := _load(path, repository_id, block_bytes)) is not None:
        fits = kept.table_bytes <= budget_bytes and _MOST_OUTGROWN * kept.table_bytes >= 64 * buckets
        if fits and not kept.is_full:
            return kept, False
    empty = np.zeros(buckets * BUCKET_PLACES, np.uint64)
    none = np.empty((0, DIGEST_BYTES), np.uint8), np.empty(0, np.int64)
    return AnchorCache(Anchors(empty, shift), *none, block_bytes), True


def map_anchor_cache(path: str, repository_id: str, block_bytes: int) -> AnchorCache | None:
    """Return the cache kept at `path` for looking up only, its table left in the file; None where there is none that fits."""
    return _load(path, repository_id, block_bytes, is_mapped=True)


def _load(path: str, repository_id: str, block_bytes: int, *, is_mapped: bool = False) -> AnchorCache | None:
    """Read a cache; None where there is none that fits."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEADER.size)
            if len(head) < _HEADER.size:
                return None
            magic, version, shift, its_block, _, buckets, records, its_id, _ = _HEADER.unpack(head)
            table_bytes, list_bytes = 64 * buckets, (DIGEST_BYTES + 2) * records
            is_ours = (magic, version, its_block, its_id) == (
                _MAGIC,
                _VERSION,
                block_bytes,
                bytes.fromhex(repository_id),
            )
            is_whole = os.fstat(file.fileno()).st_size == _HEADER.size + table_bytes + list_bytes
            if not is_ours or not is_whole or not buckets or shift > 31:
                return None
            file.seek(_HEADER.size + table_bytes)
            ids = np.fromfile(file, np.uint8, DIGEST_BYTES * records).reshape(-1, DIGEST_BYTES)
            counts = np.fromfile(file, "<u2", records).astype(np.int64)
            if is_mapped:
                mapped = np.memmap(file, np.uint64, "r", _HEADER.size, (BUCKET_PLACES * buckets,))
                return AnchorCache(Anchors(mapped, shift), ids, counts, block_bytes)
            table = np.zeros(BUCKET_PLACES * buckets, np.uint64)
            return AnchorCache(Anchors(table, shift), ids, counts, block_bytes, _begin_reading(file, table))
    except OSError:
        return None


def _begin_reading(file: BufferedReader, table: AnchorTable) -> Callable[[], None]:
    """Begin to fill a table from a file; return what waits for the end. What cannot be read stays free.

    The table is needed only once the first record is full: until then there is other work.
    """
    descriptor = os.dup(file.fileno())

    def read() -> None:
        with open(descriptor, "rb", buffering=0) as own, suppress(OSError):
            own.seek(_HEADER.size)
            rest = table.view(np.uint8).data
            while got := own.readinto(rest):
                rest = rest[got:]

    try:
        return start_thread(read, "deltaimg-anchors").join
    except OutOfResources:
        read()
        return lambda: None
