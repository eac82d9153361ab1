# SPDX-License-Identifier: Apache-2.0
"""From record ids to the numbers of entries that have them: by their first 8 bytes, and then compared whole.

Ids with equal first bytes, which occur only on purpose, are ordered by the remaining bytes and searched as fast as others.

Memory  12 bytes an entry, and as much again while it is sorted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import Digests, distinct
from deltaimg.ids import EntryNumbers

_PIECE = 1 << 16
"""Ids that are looked up at once, so that what this takes does not grow with their number."""

IsEnough = Callable[[npt.NDArray[np.int64], EntryNumbers], npt.NDArray[np.bool_]]
"""Returns for some of the wanted ids, by their numbers, whether an entry of each is enough."""


class RecordLookup:
    """Entry numbers by record id; of several entries with one id, one is found, always the same."""

    def __init__(self, ids: Digests, *ranks: npt.NDArray[Any]) -> None:
        """Args: ranks: of each entry; of several, the one with the lowest ranks is found, else the oldest."""
        self.ids = ids
        prefixes = _halves(ids)[:, 0]
        self._order = np.lexsort((*reversed(ranks), prefixes)).astype(np.uint32)
        self._prefixes = prefixes[self._order]
        if len(self._others()):
            self._order = np.lexsort((*reversed(ranks), _halves(ids)[:, 1], prefixes)).astype(np.uint32)

    def _others(self) -> npt.NDArray[np.int64]:
        """Return the places after which another id follows that begins alike."""
        alike: npt.NDArray[np.int64] = np.flatnonzero(self._prefixes[1:] == self._prefixes[:-1])
        differs: npt.NDArray[np.bool_] = (self.ids[self._order[alike]] != self.ids[self._order[alike + 1]]).any(axis=1)
        return alike[differs]

    @property
    def firsts(self) -> EntryNumbers:
        """The entry that is found for the id of each entry."""
        return self.find(self.ids)

    def repeated(self, is_delta: npt.NDArray[np.bool_]) -> EntryNumbers:
        """Return at least the entries that are found, and are deltas, of records that have other entries, too."""
        follows = np.flatnonzero(self._prefixes[1:] == self._prefixes[:-1])
        found = self.find(self.ids[self._order[follows]])
        return distinct(found[is_delta[found]])

    def list_repeated(self) -> list[list[int]]:
        """Return the entries of each record that several entries have, the best one first."""
        follows = np.flatnonzero(self._prefixes[1:] == self._prefixes[:-1])
        groups: dict[bytes, list[int]] = {}
        for place in distinct(follows, follows + 1).tolist():
            entry = int(self._order[place])
            groups.setdefault(self.ids[entry].tobytes(), []).append(entry)
        return [group for group in groups.values() if len(group) > 1]

    def prefer(self, chosen: EntryNumbers) -> None:
        """Make these entries the ones that are found, at most one of each record."""
        is_second = np.ones(len(self._order), np.int8)
        is_second[chosen] = 0
        parts = self._prefixes[1:] != self._prefixes[:-1]
        parts[self._others()] = True
        of_id = np.concatenate((np.zeros(min(1, len(self._order)), np.uint32), np.cumsum(parts, dtype=np.uint32)))
        self._order = self._order[np.lexsort((is_second[self._order], of_id))]

    def find(self, record_ids: Digests, place: int = 0) -> EntryNumbers:
        """Return the entry number of each id, -1 for one that no entry has.

        Args:
            place: of an id that several entries have, how many of them, the best ones, to pass over.
        """
        found = EntryNumbers(np.full(len(record_ids), -1, np.int64))
        for first in range(0, len(record_ids), _PIECE):
            self._find(record_ids[first : first + _PIECE], found[first : first + _PIECE], place)
        return found

    def find_best(self, record_ids: Digests, is_enough: IsEnough) -> EntryNumbers:
        """Return for each id the best entry that is enough for what is wanted of it, -1 where none is."""
        found = self.find(record_ids)
        waiting = np.flatnonzero(found >= 0)
        waiting = waiting[~is_enough(waiting, found[waiting])]
        place = 0
        while len(waiting):
            place += 1
            found[waiting] = self.find(record_ids[waiting], place)
            waiting = waiting[found[waiting] >= 0]
            waiting = waiting[~is_enough(waiting, found[waiting])]
        return found

    def _find(self, wanted: Digests, found: npt.NDArray[np.int64], place: int) -> None:
        """Put the entry of each id where one is known."""
        prefixes = _halves(wanted)[:, 0]
        low = np.searchsorted(self._prefixes, prefixes)
        high = np.searchsorted(self._prefixes, prefixes, side="right")
        self._narrow(low, high, wanted)
        places = low + place
        known = np.flatnonzero(places < high)
        entries = self._order[places[known]]
        is_same = (self.ids[entries] == wanted[known]).all(axis=1)
        found[known[is_same]] = entries[is_same]

    def _narrow(self, low: npt.NDArray[np.int64], high: npt.NDArray[np.int64], wanted: Digests) -> None:
        """Move `low` to the first place in [low, high) whose id is not before the wanted one; next to all have one place."""
        waiting = np.flatnonzero(high - low > 1)
        rests, ends = _halves(wanted[waiting])[:, 1], high[waiting]
        firsts = low[waiting]
        while len(open_ones := np.flatnonzero(firsts < ends)):
            middles = (firsts[open_ones] + ends[open_ones]) // 2
            is_before = _halves(self.ids[self._order[middles]])[:, 1] < rests[open_ones]
            firsts[open_ones[is_before]] = middles[is_before] + 1
            ends[open_ones[~is_before]] = middles[~is_before]
        low[waiting] = firsts


def _halves(ids: Digests) -> npt.NDArray[np.uint64]:
    """Return both halves of each id as numbers, of shape (count, 2)."""
    return np.ascontiguousarray(ids).view(np.uint64).reshape(len(ids), 2)
