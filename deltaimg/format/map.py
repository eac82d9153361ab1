# SPDX-License-Identifier: Apache-2.0
"""`maps/<digest>`: for each run of blocks, a hole, zero, or which slots of which records hold it.

A map lists the records that it uses, and counts slots over that list: 0 is a hole, 1 zero, 2 the first slot of the first
record, and so on without a gap. A run may so continue from one record into the next. An incremental map has only the
runs that differ from its base; a full one covers every block.

    body    := head ids packed
    head    := u64 block_count, u32 record_count, u32 run_count, u32 data_run_count, u32 packed_bytes
    ids     := record_count times a 16-byte record id
    packed  := packed columns: u16 slots of each record; then for each 65,536 runs, and for what is left of them:
               u64 gap, u32 count and u8 kind of each run; u32 slot step of each data run

Memory  16 bytes a run, and some MiB; `parse_map` has it checked before anything is expanded.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.arrays import FIRST_SLOT, RUN, Digests, Runs
from deltaimg.errors import Malformed
from deltaimg.format.columns import ColumnReader, pack_columns
from deltaimg.format.framing import HEADER_BYTES, BodyReader, Kind, frame, unframe
from deltaimg.format.limits import MAX_BLOCKS, MAX_RUNS, MAX_SLOT, find_slots_problem
from deltaimg.memory import check_room

MAPS: Final = "maps/"
HEAD: Final = struct.Struct("<QIIII")
DATA_KIND: Final = 2
PIECE_RUNS: Final = 1 << 16
"""Runs whose columns are stored together."""
RUN_MEMORY_BYTES: Final = 96
"""What a run of a map takes at most, in any verb: in the map, in what it is laid on, and in what becomes of both."""


class MapObject(Struct, frozen=True):
    """What a map object says: `runs` in the numbering of its own records."""

    block_count: int
    record_ids: Digests
    record_slots: npt.NDArray[np.uint16]
    runs: Runs


def build_map(content: MapObject) -> bytes:
    """Return a map object."""
    runs = content.runs
    data_run_count = int((runs["slot"] >= FIRST_SLOT).sum())
    packed = pack_columns(_columns_of(content), _count_column_bytes(len(content.record_ids), len(runs), data_run_count))
    head = HEAD.pack(content.block_count, len(content.record_ids), len(runs), data_run_count, len(packed))
    return frame(Kind.MAP, head + content.record_ids.tobytes() + packed)


def _columns_of(content: MapObject) -> Iterator[npt.NDArray[Any]]:
    yield content.record_slots
    end, next_slot = np.uint64(0), np.uint32(FIRST_SLOT)
    for first in range(0, len(content.runs), PIECE_RUNS):
        runs = content.runs[first : first + PIECE_RUNS]
        ends = runs["first_block"] + runs["count"]
        yield runs["first_block"] - np.concatenate(([end], ends[:-1]))
        yield runs["count"]
        yield np.minimum(runs["slot"], DATA_KIND).astype(np.uint8)
        data = runs[runs["slot"] >= FIRST_SLOT]
        next_slots = data["slot"] + data["count"]
        yield data["slot"] - np.concatenate(([next_slot], next_slots))[:-1]
        end = ends[-1]
        if len(data):
            next_slot = next_slots[-1]


def _count_column_bytes(record_count: int, run_count: int, data_run_count: int) -> int:
    return 2 * record_count + 13 * run_count + 4 * data_run_count


def parse_map(data: bytes, name: str) -> MapObject:
    """Read the map at object `name`.

    Every run it returns lies inside the image, after the one before it, and within the slots of the listed records.

    Raises:
        IntegrityError, UnsupportedFormat: it is no map. MemoryLimitReached: its runs need more than there may be for them.
    """
    reader = BodyReader(name, unframe(Kind.MAP, name, data))
    block_count, record_count, run_count, data_run_count, packed_bytes = reader.take_struct(HEAD)
    if block_count > MAX_BLOCKS or run_count > min(MAX_RUNS, block_count) or data_run_count > run_count:
        reader.refuse("its counts are absurd")
    ids = np.frombuffer(reader.take(16 * record_count), np.uint8).reshape(record_count, 16)
    offset = HEADER_BYTES + reader.position
    packed = reader.take(packed_bytes)
    reader.expect_end()
    columns = ColumnReader(name, offset, packed, _count_column_bytes(record_count, run_count, data_run_count))
    check_room(name, run_count * RUN_MEMORY_BYTES)
    slots = columns.take("<u2", record_count)
    runs = np.empty(run_count, RUN)
    pieces = _RunReader(name, offset, columns, block_count, slots, data_run_count)
    for first in range(0, run_count, PIECE_RUNS):
        pieces.fill(runs[first : first + PIECE_RUNS])
    pieces.expect_end()
    return MapObject(block_count, ids, slots, runs)


class _RunReader:
    """Makes runs of their columns, a piece after the other."""

    def __init__(
        self,
        name: str,
        offset: int,
        columns: ColumnReader,
        block_count: int,
        record_slots: npt.NDArray[np.uint16],
        data_run_count: int,
    ) -> None:
        self._name, self._offset, self._columns = name, offset, columns
        self._block_count, self._data_run_count = block_count, data_run_count
        if problem := find_slots_problem(record_slots):
            self._refuse(problem)
        self._slot_end = FIRST_SLOT + int(record_slots.sum(dtype=np.uint64))
        if self._slot_end > MAX_SLOT:
            self._refuse(f"its records have {self._slot_end - FIRST_SLOT} slots, more than can be numbered")
        self._end_block, self._next_slot, self._data_runs = 0, FIRST_SLOT, 0

    def fill(self, runs: Runs) -> None:
        """Read the next runs into `runs`, which may not be empty."""
        gaps = self._columns.take("<u8", len(runs))
        runs["count"] = self._columns.take("<u4", len(runs))
        self._place(runs, gaps)
        kinds = self._columns.take("u1", len(runs))
        if int(kinds.max()) > DATA_KIND:
            self._refuse(f"a run is of unknown kind {int(kinds.max())}")
        is_data = kinds == DATA_KIND
        runs["slot"] = kinds
        runs["slot"][is_data] = self._number(runs["count"][is_data])

    def expect_end(self) -> None:
        """Refuse slots that no run has, and columns that continue."""
        if self._data_runs != self._data_run_count:
            self._refuse(f"{self._data_runs} data runs, but {self._data_run_count} slots for them")
        self._columns.expect_end()

    def _place(self, runs: Runs, gaps: npt.NDArray[np.uint64]) -> None:
        if int(gaps.max()) > self._block_count or int(runs["count"].min()) == 0:
            self._refuse("a run is empty or begins past the end of the image")
        # Each step is below 2^49, so the sum passes block_count, and is caught there, long before it could wrap.
        ends = np.cumsum(gaps + runs["count"], dtype=np.uint64) + np.uint64(self._end_block)
        if int(ends.max()) > self._block_count:
            self._refuse("its runs pass the end of the image")
        runs["first_block"] = ends - runs["count"]
        self._end_block = int(ends[-1])

    def _number(self, counts: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint64]:
        """Return the first slot of each of the next data runs."""
        self._data_runs += len(counts)
        if self._data_runs > self._data_run_count:
            self._refuse(f"at least {self._data_runs} data runs, but {self._data_run_count} slots for them")
        steps = self._columns.take("<u4", len(counts))
        # Steps wrap at 2^32, as the writer's subtraction did; the result is then compared with the true bounds.
        before = np.cumsum(counts, dtype=np.uint64) - counts
        slots = (np.cumsum(steps, dtype=np.uint64) + before + np.uint64(self._next_slot)) & np.uint64(0xFFFFFFFF)
        if len(slots):
            if int(slots.min()) < FIRST_SLOT or int((slots + counts).max()) > self._slot_end:
                self._refuse("a run names slots that its records do not have")
            self._next_slot = int(slots[-1]) + int(counts[-1])
        return slots

    def _refuse(self, problem: str) -> NoReturn:
        raise Malformed(self._name, self._offset, problem)
