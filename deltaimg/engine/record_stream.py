# SPDX-License-Identifier: Apache-2.0
"""Gather new blocks into records, encode these on all cores, and hand them to the packs in order.

Memory  a record's content for each one that is being filled, encoded or waits for its turn.
"""

from __future__ import annotations

import mmap
import queue
from dataclasses import dataclass

import numpy as np

from deltaimg.arrays import DIGEST_BYTES, Digests, Slots
from deltaimg.codec.interface import Codec
from deltaimg.delta.encode import EncodedRecord, encode_record
from deltaimg.engine.pipeline import OrderedPool, ThreadBuffer
from deltaimg.kernels import gather_blocks
from deltaimg.model import MIB
from deltaimg.repo.pack_writer import PackWriter

RECORD_BYTES = MIB


@dataclass(frozen=True, slots=True)
class _Filled:
    buffer: memoryview
    content: memoryview
    digests: Digests


class RecordStream:
    """Takes new blocks in the order of their slots; a context manager around its threads."""

    def __init__(self, writer: PackWriter, *, codec: Codec, record_key: bytes, block_bytes: int, workers: int) -> None:
        self._writer = writer
        self._codec, self._record_key = codec, record_key
        self._block_bytes = block_bytes
        self._record_blocks = max(1, RECORD_BYTES // block_bytes)
        self._free: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        self._pool = OrderedPool(self._encode, workers=workers, window=2 * workers)
        self._scratch = ThreadBuffer()
        self._buffer = self._take_buffer()
        self._filled_blocks = 0
        self._digests: list[Digests] = []
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
    def slot_counts(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.array(self._counts, np.int64)

    def add(self, content: memoryview, block_indexes: Slots, digests: Digests) -> None:
        """Take blocks `block_indexes` of `content`, whose digests are `digests`, in that order; both are copied."""
        done = 0
        while done < len(block_indexes):
            count = min(len(block_indexes) - done, self._record_blocks - self._filled_blocks)
            start = self._filled_blocks * self._block_bytes
            room = self._buffer[start : start + count * self._block_bytes]
            gather_blocks(content, self._block_bytes, block_indexes[done : done + count], np.frombuffer(room, np.uint8))
            self._digests.append(digests[done : done + count].copy())
            self._filled_blocks += count
            done += count
            if self._filled_blocks == self._record_blocks:
                self._close_record()

    def finish(self) -> None:
        """Encode what is left and give it to the writer."""
        if self._filled_blocks:
            self._close_record()
        for record in self._pool.drain():
            self._give(record)

    def _close_record(self) -> None:
        content = self._buffer[: self._filled_blocks * self._block_bytes]
        for record in self._pool.submit(_Filled(self._buffer, content, np.concatenate(self._digests))):
            self._give(record)
        self._buffer = self._take_buffer()
        self._filled_blocks = 0
        self._digests = []

    def _encode(self, filled: _Filled) -> EncodedRecord:
        record = encode_record(
            filled.content,
            filled.digests,
            codec=self._codec,
            record_key=self._record_key,
            block_bytes=self._block_bytes,
            scratch=self._scratch.get(len(filled.buffer)),
        )
        self._free.put(filled.buffer)
        return record

    def _give(self, record: EncodedRecord) -> None:
        self._ids.append(record.header.id)
        self._counts.append(record.header.slots)
        self._writer.add(record.header, record.payload, record.digests)

    def _take_buffer(self) -> memoryview:
        try:
            return self._free.get_nowait()
        except queue.Empty:
            return memoryview(mmap.mmap(-1, self._record_blocks * self._block_bytes))
