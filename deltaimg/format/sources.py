# SPDX-License-Identifier: Apache-2.0
"""The sources of a delta record: which slots of which other records it is encoded against, in order.

Stands at the start of the record's payload, so that the record names what it needs itself:

    sources := ids runs
    ids     := a 16-byte record id for each source record, as many as the record's header says
    runs    := the slots taken from each of these, as `slot_runs` codes them

The blocks of all runs, one after another, are what the rest of the payload is decoded against.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.arrays import DIGEST_BYTES, Digests, expand_ranges
from deltaimg.errors import Malformed
from deltaimg.format.limits import MAX_SOURCE_BYTES, MAX_SOURCE_RECORDS
from deltaimg.format.slot_runs import SlotRuns, build_runs, collect_runs, parse_runs


class SourceTable(Struct, frozen=True):
    """Source records by id, and the runs of slots taken from each."""

    ids: Digests
    run_counts: npt.NDArray[np.uint16]
    runs: SlotRuns

    @property
    def slot_count(self) -> int:
        """Slots that the delta is encoded against."""
        return int(self.runs["count"].sum(dtype=np.uint64))

    def list_slots(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the record of each slot, by its place in `ids`, and the slot's number in that record."""
        counts = self.runs["count"].astype(np.int64)
        records = np.repeat(np.arange(len(self.ids)), self.run_counts)
        return np.repeat(records, counts), expand_ranges(self.runs["first_slot"].astype(np.int64), counts)

    def keep(self, is_kept: npt.NDArray[np.bool_]) -> SourceTable:
        """Return a table of only some of the slots, at least one."""
        records, slots = self.list_slots()
        return describe_slots(records[is_kept], slots[is_kept], lambda kept: self.ids[kept])


def describe_slots(
    records: npt.NDArray[np.int64], slots: npt.NDArray[np.int64], find_ids: Callable[[npt.NDArray[np.int64]], Digests]
) -> SourceTable:
    """Return a table of slots of records, at least one.

    Args:
        records: of each slot, those of a record together. slots: in their record, ascending.
        find_ids: returns the ids of records.
    """
    begins_record = np.diff(records, prepend=-1) != 0
    runs, starts = collect_runs(slots, begins_record)
    firsts = np.flatnonzero(begins_record[starts])
    run_counts = np.diff(np.append(firsts, len(starts))).astype(np.uint16)
    return SourceTable(find_ids(records[starts[firsts]]).reshape(-1, DIGEST_BYTES), run_counts, runs)


def build_sources(table: SourceTable) -> bytes:
    """Return the table before a delta."""
    return table.ids.tobytes() + build_runs(table.run_counts, table.runs)


def parse_sources(
    name: str, offset: int, payload: memoryview, record_count: int, block_bytes: int
) -> tuple[SourceTable, memoryview]:
    """Return the sources at the start of a delta record's payload, and the delta that follows them.

    Args:
        name, offset: the pack and the place of the record, for errors.
        record_count: of source records, as the record's header says.

    Raises:
        Malformed: they exceed the payload, or are not runs of this many records.
    """
    ids_end = DIGEST_BYTES * record_count
    if record_count > MAX_SOURCE_RECORDS or ids_end > len(payload):
        raise Malformed(name, offset, "the record here has more sources than there is room for")
    ids = np.frombuffer(payload, np.uint8, ids_end).reshape(record_count, DIGEST_BYTES)
    try:
        run_counts, runs, delta = parse_runs(payload[ids_end:], record_count)
    except ValueError as error:
        raise Malformed(name, offset, f"of the sources of the record here {error}") from error
    table = SourceTable(ids, run_counts, runs)
    if table.slot_count * block_bytes > MAX_SOURCE_BYTES:
        raise Malformed(name, offset, f"the record here has sources of more than {MAX_SOURCE_BYTES} bytes")
    return table, delta
