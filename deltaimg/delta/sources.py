# SPDX-License-Identifier: Apache-2.0
"""Choose the delta sources of a run of new blocks: the blocks that share most with it, wherever they are.

Anchors of the new content vote for the slots that hold the same bytes. The records with most votes are taken, within what a
reader may be asked to decode for one record, and of those the slots with most votes, in order of slot. When a delta was made
of these, those that it needs little of are left out, and another is made of the rest.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.arrays import Flags, distinct
from deltaimg.format.sources import SourceTable
from deltaimg.model import MIB

_LEAST_BYTES = 128
"""What a delta must need of a block: below, it is as small without it, and each source is a read in every restore."""
_LEAST_RECORD_BYTES = 512
"""What it must need of a record, whose id is 16 bytes in the table, and which may be decoded for nothing else."""
_FEWEST_DROPPED = 1 / 16
"""Of the blocks: for fewer, encoding once more is not worth its time."""


class SourceLimits(Struct, frozen=True):
    """What one delta record may draw on."""

    depth: int = 8
    """Maximum delta chain depth; the next record is a literal again."""
    records: int = 64
    """Records that a random read of one record must decode in addition."""
    content_bytes: int = MIB
    """Twice a record. With 2 MiB, two guests' six days take as much, to 0.02 %, and restores a tenth to a fifth more time."""


BEST_LIMITS = SourceLimits(records=128, content_bytes=4 * MIB)


def choose_slots(
    slots: npt.NDArray[np.int64],
    votes: npt.NDArray[np.float64],
    records: npt.NDArray[np.int64],
    max_records: int,
    max_slots: int,
) -> npt.NDArray[np.int64]:
    """Return the slots that win, ascending.

    Args:
        slots: those with any votes, ascending; how many each has, and its record.
    """
    _, of_record = np.unique(records, return_inverse=True)
    record_votes = np.bincount(of_record, weights=votes)
    if len(record_votes) > max_records:
        is_chosen = np.zeros(len(record_votes), np.bool_)
        is_chosen[np.argsort(-record_votes, kind="stable")[:max_records]] = True
        kept = is_chosen[of_record]
        slots, votes = slots[kept], votes[kept]
    if len(slots) > max_slots:
        slots = np.sort(slots[np.argsort(-votes, kind="stable")[:max_slots]])
    return slots


class Sources(Struct, frozen=True):
    """What a record may be encoded against: the table that it would begin with, and the blocks that the table names."""

    table: SourceTable
    content: memoryview


def choose_used(table: SourceTable, used_bytes: npt.NDArray[np.uint32]) -> Flags:
    """Return which blocks of sources are worth having, of each of which a delta needs `used_bytes`."""
    records, _ = table.list_slots()
    is_used = used_bytes > _LEAST_BYTES
    of_records = np.bincount(records, used_bytes * is_used, len(table.ids))
    is_used &= of_records[records] > _LEAST_RECORD_BYTES
    drops_record = len(distinct(records[is_used])) < len(table.ids)
    if not drops_record and np.count_nonzero(~is_used) < _FEWEST_DROPPED * len(records):
        return np.ones(len(records), np.bool_)
    return is_used
