# SPDX-License-Identifier: Apache-2.0
"""`maps/<digest>`: for each run of blocks, a hole, zero, or which slots of which records hold it.

A map lists the records that it uses, and counts slots over that list: 0 is a hole, 1 zero, 2 the first slot of the first
record, and so on without a gap. A run may so continue from one record into the next. An incremental map has only the
runs that differ from its base; a full one covers every block.

    body    := head ids packed
    head    := u64 block_count, u32 record_count, u32 run_count, u32 data_run_count, u32 packed_bytes
    ids     := record_count times a 16-byte record id
    packed  := zstd of byte planes: u16 slots of each record; u64 gap, u32 count and u8 kind of each run; u32 slot step of
               each data run
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import FIRST_SLOT, RUN, Digests, Runs
from deltaimg.errors import Malformed
from deltaimg.format.columns import pack_columns, unpack_columns
from deltaimg.format.framing import HEADER_BYTES, BodyReader, Kind, frame, unframe
from deltaimg.format.limits import MAX_BLOCKS, MAX_RUNS, MAX_SLOT, find_slots_problem

MAPS: Final = "maps/"
HEAD: Final = struct.Struct("<QIIII")
DATA_KIND: Final = 2


@dataclass(frozen=True, slots=True)
class MapObject:
    """What a map object says: `runs` in the numbering of its own records."""

    block_count: int
    record_ids: Digests
    record_slots: npt.NDArray[np.uint16]
    runs: Runs


def build_map(content: MapObject) -> bytes:
    """Return a map object."""
    runs = content.runs
    ends = runs["first_block"] + runs["count"]
    gaps = runs["first_block"] - np.concatenate((np.zeros(1, np.uint64), ends[:-1]))[: len(runs)]
    kinds = np.minimum(runs["slot"], DATA_KIND).astype(np.uint8)
    data = runs[runs["slot"] >= FIRST_SLOT]
    expected = np.concatenate((np.full(1, FIRST_SLOT, np.uint32), (data["slot"] + data["count"])[:-1]))[: len(data)]
    steps = data["slot"] - expected
    packed, _ = pack_columns([content.record_slots, gaps, runs["count"], kinds, steps])
    head = HEAD.pack(content.block_count, len(content.record_ids), len(runs), len(data), len(packed))
    return frame(Kind.MAP, head + content.record_ids.tobytes() + packed)


def parse_map(data: bytes, name: str) -> MapObject:
    """Read the map at object `name`; raises IntegrityError or UnsupportedFormat.

    Every run it returns lies inside the image, after the one before it, and within the slots of the listed records.
    """
    reader = BodyReader(name, unframe(Kind.MAP, name, data))
    block_count, record_count, run_count, data_run_count, packed_bytes = reader.take_struct(HEAD)
    if block_count > MAX_BLOCKS or run_count > min(MAX_RUNS, block_count) or data_run_count > run_count:
        reader.refuse("its counts are absurd")
    ids = np.frombuffer(reader.take(16 * record_count), np.uint8).reshape(record_count, 16)
    offset = HEADER_BYTES + reader.position
    packed = bytes(reader.take(packed_bytes))
    reader.expect_end()
    layout = [("<u2", record_count), ("<u8", run_count), ("<u4", run_count), ("u1", run_count), ("<u4", data_run_count)]
    slots, gaps, counts, kinds, steps = unpack_columns(name, offset, packed, layout)
    if problem := find_slots_problem(slots):
        raise Malformed(name, offset, problem)
    slot_end = FIRST_SLOT + int(slots.sum(dtype=np.uint64))
    if slot_end > MAX_SLOT:
        raise Malformed(name, offset, f"its records have {slot_end - FIRST_SLOT} slots, more than can be numbered")
    runs = np.empty(run_count, RUN)
    runs["count"] = counts
    runs["first_block"] = _place_runs(name, offset, gaps, counts, block_count)
    runs["slot"] = _number_slots(name, offset, kinds, steps, counts, slot_end)
    return MapObject(block_count, ids, slots, runs)


def _place_runs(
    name: str, offset: int, gaps: npt.NDArray[np.uint64], counts: npt.NDArray[np.uint32], block_count: int
) -> npt.NDArray[np.uint64]:
    if len(gaps) == 0:
        return gaps
    if int(gaps.max()) > block_count or int(counts.min()) == 0:
        raise Malformed(name, offset, "a run is empty or begins past the end of the image")
    # Each step is below 2^49, so the sum passes block_count, and is caught there, long before it could wrap.
    ends = np.cumsum(gaps + counts, dtype=np.uint64)
    if int(ends.max()) > block_count:
        raise Malformed(name, offset, "its runs pass the end of the image")
    starts: npt.NDArray[np.uint64] = ends - counts
    return starts


def _number_slots(
    name: str,
    offset: int,
    kinds: npt.NDArray[np.uint8],
    steps: npt.NDArray[np.uint32],
    counts: npt.NDArray[np.uint32],
    slot_end: int,
) -> npt.NDArray[np.uint32]:
    is_data = kinds == DATA_KIND
    if len(kinds) and int(kinds.max()) > DATA_KIND:
        raise Malformed(name, offset, f"a run is of unknown kind {int(kinds.max())}")
    if int(is_data.sum()) != len(steps):
        raise Malformed(name, offset, f"{int(is_data.sum())} data runs, but {len(steps)} slots for them")
    data_counts = counts[is_data]
    # Steps wrap at 2^32, as the writer's subtraction did; what comes out is then held against the true bounds.
    before = np.cumsum(data_counts, dtype=np.uint64) - data_counts
    first = (np.cumsum(steps, dtype=np.uint64) + before + np.uint64(FIRST_SLOT)) & np.uint64(0xFFFFFFFF)
    if len(first) and (int(first.min()) < FIRST_SLOT or int((first + data_counts).max()) > slot_end):
        raise Malformed(name, offset, "a run names slots that its records do not have")
    slots = kinds.astype(np.uint32)
    slots[is_data] = first
    return slots
