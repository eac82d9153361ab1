# SPDX-License-Identifier: Apache-2.0
"""Choose the delta sources of a run of new blocks: the blocks that share most with it, wherever they are.

Anchors of the new content vote for the slots that hold the same bytes. The records with most votes are taken, within what a
reader may be asked to decode for one record, and of those the slots with most votes, in order of slot.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deltaimg.model import MIB


@dataclass(frozen=True, slots=True)
class SourceLimits:
    """What one delta record may draw on."""

    depth: int = 8
    """Maximum delta chain depth; the next record is a literal again."""
    records: int = 64
    """Records that a random read of one record must decode in addition."""
    content_bytes: int = 2 * MIB


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
