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

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import DIGEST_BYTES, Digests
from deltaimg.errors import Malformed
from deltaimg.format.limits import MAX_SOURCE_BYTES, MAX_SOURCE_RECORDS
from deltaimg.format.slot_runs import SLOT_RUN, SlotRuns, find_runs_problem


@dataclass(frozen=True, slots=True)
class SourceTable:
    """Source records by id, and the runs of slots taken from each."""

    ids: Digests
    run_counts: npt.NDArray[np.uint16]
    runs: SlotRuns

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
        Malformed: they pass the payload, or `find_runs_problem` finds one.
    """
    fixed_bytes = (DIGEST_BYTES + 2) * record_count
    if record_count > MAX_SOURCE_RECORDS or fixed_bytes > len(payload):
        raise Malformed(name, offset, "the record here has more sources than there is room for")
    ids = np.frombuffer(payload, np.uint8, DIGEST_BYTES * record_count).reshape(record_count, DIGEST_BYTES)
    run_counts = np.frombuffer(payload, "<u2", record_count, DIGEST_BYTES * record_count)
    run_count = int(run_counts.sum(dtype=np.uint64))
    delta_offset = fixed_bytes + SLOT_RUN.itemsize * run_count
    if delta_offset > len(payload):
        raise Malformed(name, offset, "the record here has more sources than there is room for")
    table = SourceTable(ids, run_counts, np.frombuffer(payload, SLOT_RUN, run_count, fixed_bytes))
    if problem := find_runs_problem(run_counts, table.runs):
        raise Malformed(name, offset, f"of the sources of the record here {problem}")
    if table.slot_count * block_bytes > MAX_SOURCE_BYTES:
        raise Malformed(name, offset, f"the record here has sources of more than {MAX_SOURCE_BYTES} bytes")
    return table, payload[delta_offset:]
