# SPDX-License-Identifier: Apache-2.0
"""Which copy of a record has the slots that are needed: a record may be stored several times, whole and cut."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.arrays import expand_ranges
from deltaimg.errors import IntegrityError
from deltaimg.ids import EntryNumbers
from deltaimg.repo.index import LoadedIndex

Numbers = npt.NDArray[np.int64]


class SlotPieces(Struct, frozen=True):
    """Stretches of slots of index entries: slots [first, first + count) of an entry each."""

    entries: EntryNumbers
    firsts: Numbers
    counts: Numbers

    def __len__(self) -> int:
        return len(self.entries)

    def take(self, numbers: Numbers) -> SlotPieces:
        """Return some of the pieces."""
        return SlotPieces(self.entries[numbers], self.firsts[numbers], self.counts[numbers])


def place_slots(index: LoadedIndex, wanted: SlotPieces, needed_by: str) -> tuple[SlotPieces, Numbers]:
    """Return pieces with the same slots of the same records, of entries that have them; and which of `wanted` each belongs to.

    The entries of `wanted` are taken where they have the slots. A piece that no entry has whole whose pack is there is returned
    as single slots: a copy in parts that are there is better than a whole one that is gone.

    Raises:
        IntegrityError: no copy of a record has a slot that the object `needed_by` needs.
    """
    origins = np.arange(len(wanted))
    if not len(index.cuts):
        return wanted, origins
    lacking = np.flatnonzero(~index.cuts.have(wanted.entries, wanted.firsts, wanted.counts))
    if not len(lacking):
        return wanted, origins
    asked = wanted.take(lacking)
    found = index.find_slots(index.entries["id"][asked.entries], asked.firsts, asked.counts)
    is_whole = (found >= 0) & ~index.is_missing[np.maximum(found, 0)]
    placed = SlotPieces(found[is_whole], asked.firsts[is_whole], asked.counts[is_whole])
    single, of_single = _place_single(index, asked.take(np.flatnonzero(~is_whole)), needed_by)
    kept = np.delete(origins, lacking)
    parts = (wanted.take(kept), placed, single)
    joined = SlotPieces(
        EntryNumbers(np.concatenate([part.entries for part in parts])),
        np.concatenate([part.firsts for part in parts]),
        np.concatenate([part.counts for part in parts]),
    )
    return joined, np.concatenate((kept, lacking[is_whole], lacking[~is_whole][of_single]))


def _place_single(index: LoadedIndex, wanted: SlotPieces, needed_by: str) -> tuple[SlotPieces, Numbers]:
    """Do as `place_slots`, slot by slot."""
    origins = np.repeat(np.arange(len(wanted)), wanted.counts)
    firsts, ones = expand_ranges(wanted.firsts, wanted.counts), np.ones(len(origins), np.int64)
    ids = index.entries["id"][wanted.entries[origins]]
    found = index.find_slots(ids, firsts, ones)
    if len(found) and int(found.min()) < 0:
        lost = int(np.argmin(found))
        record = ids[lost].tobytes().hex()[:16]
        raise IntegrityError(
            needed_by, 0, f"needs block {int(firsts[lost])} of record {record}, which no copy of it has"
        )
    return SlotPieces(found, firsts, ones), origins
