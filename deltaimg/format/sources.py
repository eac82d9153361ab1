# SPDX-License-Identifier: Apache-2.0
"""The sources of a delta record: which slots of which other records it is encoded against, in order.

Stands at the start of the record's payload, so that the record names what it needs itself:

    sources := ids runs
    ids     := a 16-byte record id for each source record, as many as the record's header says
    runs    := the slots taken from each of these, as `slot_runs` codes them

The blocks of all runs, one after another, are what the rest of the payload is decoded against.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import DIGEST_BYTES, Digests
from deltaimg.errors import Malformed
from deltaimg.format.limits import MAX_SOURCE_BYTES, MAX_SOURCE_RECORDS
from deltaimg.format.slot_runs import SlotRuns, build_runs, parse_runs


@dataclass(frozen=True, slots=True)
class SourceTable:
    """Source records by id, and the runs of slots taken from each."""

    ids: Digests
    run_counts: npt.NDArray[np.uint16]
    runs: SlotRuns

    @property
    def slot_count(self) -> int:
        """Slots that the delta is encoded against."""
        return int(self.runs["count"].sum(dtype=np.uint64))


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
