# SPDX-License-Identifier: Apache-2.0
"""From record ids to the numbers of entries that have them: by their first 8 bytes, and then compared whole.

Memory  12 bytes an entry, and as much again while it is sorted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import Digests, distinct

_PIECE = 1 << 16
"""Ids that are looked up at once, so that what this takes does not grow with their number."""

IsEnough = Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], npt.NDArray[np.bool_]]
"""Returns for some of the wanted ids, by their numbers, whether an entry of each is enough."""


class RecordLookup:
    """Entry numbers by record id; of several entries with one id, one is found, always the same."""

    def __init__(self, ids: Digests, *ranks: npt.NDArray[Any]) -> None:
        """Args: ranks: of each entry; the lowest is found, by the first that tells, else the oldest."""
        self.ids = ids
        prefixes = _prefixes(ids)
        self._order = np.lexsort((*reversed(ranks), prefixes)).astype(np.uint32)
        self._prefixes = prefixes[self._order]

    @property
    def firsts(self) -> npt.NDArray[np.int64]:
        """The entry that is found for the id of each entry."""
        return self.find(self.ids)

    def repeated(self, is_delta: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
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

    def prefer(self, chosen: npt.NDArray[np.int64]) -> None:
        """Have these entries found, at most one of each record."""
        is_second = np.ones(len(self._order), np.int8)
        is_second[chosen] = 0
        self._order = self._order[np.lexsort((is_second[self._order], self._prefixes))]

    def find(self, record_ids: Digests, place: int = 0) -> npt.NDArray[np.int64]:
        """Return the entry number of each id, -1 for one that no entry has.

        Args:
            place: of an id that several entries have, how many of them, the best ones, to pass over.
        """
        found = np.full(len(record_ids), -1, np.int64)
        for first in range(0, len(record_ids), _PIECE):
            self._find(record_ids[first : first + _PIECE], found[first : first + _PIECE], place)
        return found

    def find_best(self, record_ids: Digests, is_enough: IsEnough) -> npt.NDArray[np.int64]:
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
        prefixes = _prefixes(wanted)
        left = np.full(len(wanted), place)
        places = np.searchsorted(self._prefixes, prefixes)
        waiting = np.flatnonzero(places < len(self._order))
        # Once for next to all; again where ids begin alike, or one is in several places.
        while len(waiting):
            waiting = waiting[self._prefixes[places[waiting]] == prefixes[waiting]]
            entries = self._order[places[waiting]]
            is_same = (self.ids[entries] == wanted[waiting]).all(axis=1)
            is_found = is_same & (left[waiting] == 0)
            found[waiting[is_found]] = entries[is_found]
            left[waiting[is_same]] -= 1
            waiting = waiting[~is_found]
            places[waiting] += 1
            waiting = waiting[places[waiting] < len(self._order)]


def _prefixes(ids: Digests) -> npt.NDArray[np.uint64]:
    """Return the first 8 bytes of each id as a number."""
    return np.ascontiguousarray(ids[:, :8]).view(np.uint64).reshape(len(ids))
