# SPDX-License-Identifier: Apache-2.0
"""Gather new blocks into records, encode these on all cores, and hand them to the pack writer in order.

Memory  the content of each record that is being filled, is being encoded or waits for its turn.
"""

from __future__ import annotations

import mmap
import queue

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.arrays import DIGEST_BYTES, Digests, runs_from_blocks
from deltaimg.delta.encode import EncodedRecord, Encoder, count_record_blocks
from deltaimg.engine.backup.changed_blocks import ChangedBlocks
from deltaimg.engine.backup.delta_sources.choose import Choice
from deltaimg.engine.backup.delta_sources.open import DeltaSources
from deltaimg.engine.backup.delta_sources.source_records import NewRecord
from deltaimg.engine.content.restore_needs import RestoreNeeds
from deltaimg.engine.pipeline import OrderedPool, ThreadBuffer
from deltaimg.format.record import RECORD_HEADER_BYTES
from deltaimg.kernels import gather_blocks
from deltaimg.repo.pack_writer import PackWriter

_NO_RECORDS = np.empty(0, np.int64)


class _Filled(Struct, frozen=True):
    buffer: memoryview
    content: memoryview
    digests: Digests
    choice: Choice | None


class RecordStream:
    """Takes new blocks in the order of their slots; a context manager around its threads."""

    def __init__(
        self,
        writer: PackWriter,
        encoder: Encoder,
        *,
        block_bytes: int,
        first_slot: int,
        workers: int,
        needs: RestoreNeeds,
        delta_sources: DeltaSources | None = None,
    ) -> None:
        """Args: first_slot: of the first new record. delta_sources: None makes literals only. needs: is kept up to date."""
        self._writer, self._encoder, self._delta_sources, self._needs = writer, encoder, delta_sources, needs
        self.payload_bytes = 0
        """What the records that were given to the writer take in packs."""
        self._block_bytes = block_bytes
        self._record_blocks = count_record_blocks(block_bytes)
        self._free: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        self._pool = OrderedPool(workers=workers, window=4 * workers)
        self._scratch = ThreadBuffer()
        self._buffer = self._take_buffer()
        self._filled_blocks = 0
        self._next_slot = first_slot
        self._digests: list[Digests] = []
        self._blocks: list[npt.NDArray[np.uint64]] = []
        self._ids: list[bytes] = []
        self._counts: list[int] = []

    def __enter__(self) -> RecordStream:
        self._pool.__enter__()
        return self

    def __exit__(self, *details: object) -> None:
        self._pool.__exit__(None, None, None)

    @property
    def record_ids(self) -> Digests:
        """The id of every record made so far, in the order of their slots; complete after `finish`."""
        return np.frombuffer(b"".join(self._ids), np.uint8).reshape(-1, DIGEST_BYTES)

    @property
    def slot_counts(self) -> npt.NDArray[np.int64]:
        """How many slots each of them has."""
        return np.array(self._counts, np.int64)

    def add(self, new: ChangedBlocks) -> None:
        """Take new blocks in that order; all are copied."""
        done = 0
        while done < len(new.blocks):
            part = new.choose(slice(done, done + self._record_blocks - self._filled_blocks))
            count = len(part.blocks)
            start = self._filled_blocks * self._block_bytes
            room = self._buffer[start : start + count * self._block_bytes]
            gather_blocks(part.content, self._block_bytes, part.indexes, np.frombuffer(room, np.uint8))
            self._digests.append(part.digests.copy())
            self._blocks.append(part.blocks.copy())
            self._filled_blocks += count
            done += count
            if self._filled_blocks == self._record_blocks:
                self._close_record()

    def settle(self) -> int:
        """Wait until all full records are encoded; return how many blocks wait in one that is not full."""
        for filled, record in self._pool.drain():
            self._give(filled, record)
        return self._filled_blocks

    def begin_rewriting(self) -> None:
        """From now on encode records only against what a restore decodes anyway."""
        if self._delta_sources is not None:
            self._delta_sources.settle()

    def finish(self) -> None:
        """Encode what is left and give it to the writer. Only the last record may have fewer blocks than the others."""
        if self._filled_blocks:
            self._close_record()
        self.settle()

    def _close_record(self) -> None:
        content = self._buffer[: self._filled_blocks * self._block_bytes]
        digests = np.concatenate(self._digests)
        choice = self._choose(content, digests)
        filled = _Filled(self._buffer, content, digests, choice)
        self._needs.add(self._filled_blocks, _NO_RECORDS if choice is None else choice.records)
        for done, record in self._pool.submit(self._encode, filled):
            self._give(done, record)
        self._next_slot += self._filled_blocks
        self._buffer = self._take_buffer()
        self._filled_blocks = 0
        self._digests, self._blocks = [], []

    def _choose(self, content: memoryview, digests: Digests) -> Choice | None:
        """Return what the record that is full now should be encoded against."""
        if self._delta_sources is None:
            return None
        slots = np.arange(self._next_slot, self._next_slot + len(digests), dtype=np.uint32)
        runs = runs_from_blocks(np.concatenate(self._blocks), slots)
        return self._delta_sources.choose(content, NewRecord(self._encoder.name_record(digests), runs))

    def _encode(self, filled: _Filled) -> tuple[_Filled, EncodedRecord]:
        choice, delta_sources = filled.choice, self._delta_sources
        sources = delta_sources.fetch(choice) if delta_sources and choice else None
        scratch = self._scratch.get(len(filled.buffer))
        record = self._encoder.encode(filled.content, filled.digests, sources, scratch)
        if delta_sources and choice and record.tables.sources is not None:
            delta_sources.keep(record.header.id, choice, filled.content)
        self._free.put(filled.buffer)
        return filled, record

    def _give(self, filled: _Filled, record: EncodedRecord) -> None:
        if self._delta_sources and filled.choice and record.gain is not None:
            self._delta_sources.note_gain(filled.choice, record.gain)
        table, choice = record.tables.sources, filled.choice
        if self._delta_sources and choice and (table is None or len(table.ids) < len(choice.records)):
            self._needs.correct(len(self._ids), self._delta_sources.find_used(choice, table))
        self.payload_bytes += len(record.payload) + RECORD_HEADER_BYTES
        self._ids.append(record.header.id)
        self._counts.append(record.header.slots)
        self._writer.add(record.header, record.payload, record.digests, record.tables)

    def _take_buffer(self) -> memoryview:
        try:
            return self._free.get_nowait()
        except queue.Empty:
            return memoryview(mmap.mmap(-1, self._record_blocks * self._block_bytes))
