# SPDX-License-Identifier: Apache-2.0
"""The sources of a delta record: which slots of which other records it is encoded against, in order.

Stands at the start of the record's payload, so that the record names what it needs itself:

    sources    := ids run_counts runs
    ids        := a 16-byte record id for each source record, as many as the record's header says
    run_counts := u16 runs of each source record
    runs       := u16 first_slot, u16 slot_count for each run, record after record

The blocks of all runs, one after another, are what the rest of the payload is decoded against.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import DIGEST_BYTES, Digests
from deltaimg.errors import Malformed
from deltaimg.format.limits import MAX_RECORD_SLOTS, MAX_SOURCE_BYTES, MAX_SOURCE_RECORDS

SOURCE_RUN: Final = np.dtype([("first_slot", "<u2"), ("count", "<u2")])
"""Consecutive slots of one source record; count is at least 1."""


@dataclass(frozen=True, slots=True)
class SourceTable:
    """Source records by id, and the runs of slots taken from each."""

    ids: Digests
    run_counts: npt.NDArray[np.uint16]
    runs: npt.NDArray[np.void]

    @property
    def slot_count(self) -> int:
        return int(self.runs["count"].sum(dtype=np.uint64))


def build_sources(table: SourceTable) -> bytes:
    """Return the bytes that stand before a delta."""
    return table.ids.tobytes() + table.run_counts.astype("<u2").tobytes() + table.runs.tobytes()


def parse_sources(
    name: str, offset: int, payload: memoryview, record_count: int, block_bytes: int
) -> tuple[SourceTable, memoryview]:
    """Return the sources at the start of a delta record's payload, and the delta that follows them.

    Args:
        name, offset: the pack and the place of the record, for errors.
        record_count: of source records, as the record's header says.

    Raises:
        Malformed: they pass the payload, or `find_sources_problem` finds one.
    """
    fixed_bytes = (DIGEST_BYTES + 2) * record_count
    if record_count > MAX_SOURCE_RECORDS or fixed_bytes > len(payload):
        raise Malformed(name, offset, "the record here has more sources than there is room for")
    ids = np.frombuffer(payload, np.uint8, DIGEST_BYTES * record_count).reshape(record_count, DIGEST_BYTES)
    run_counts = np.frombuffer(payload, "<u2", record_count, DIGEST_BYTES * record_count)
    run_count = int(run_counts.sum(dtype=np.uint64))
    delta_offset = fixed_bytes + SOURCE_RUN.itemsize * run_count
    if delta_offset > len(payload):
        raise Malformed(name, offset, "the record here has more sources than there is room for")
    table = SourceTable(ids, run_counts, np.frombuffer(payload, SOURCE_RUN, run_count, fixed_bytes))
    if problem := find_sources_problem(run_counts, table.runs):
        raise Malformed(name, offset, f"of the record here {problem}")
    if table.slot_count * block_bytes > MAX_SOURCE_BYTES:
        raise Malformed(name, offset, f"the record here has sources of more than {MAX_SOURCE_BYTES} bytes")
    return table, payload[delta_offset:]


def find_sources_problem(run_counts: npt.NDArray[np.uint16], runs: npt.NDArray[np.void]) -> str | None:
    """Return what is wrong with the runs of some source records, one record's after another's, or None."""
    if len(run_counts) and int(run_counts.min()) == 0:
        return "a source record has no slots"
    if not len(runs):
        return None
    ends = runs["first_slot"].astype(np.uint32) + runs["count"]
    if int(runs["count"].min()) == 0 or int(ends.max()) > MAX_RECORD_SLOTS:
        return "a source is empty or lies outside any record"
    begins_record = np.zeros(len(runs), np.bool_)
    begins_record[np.cumsum(run_counts, dtype=np.int64) - run_counts] = True
    if bool(np.any((runs["first_slot"][1:] < ends[:-1]) & ~begins_record[1:])):
        return "sources overlap or are out of order"
    return None
