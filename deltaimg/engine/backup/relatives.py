# SPDX-License-Identifier: Apache-2.0
"""Other images that this one shares records with: what they became since may be what this one becomes tonight.

Guests of one template refer to the same records, and get the same upgrades, seldom equal to the block. What the first of them
stored is what the others are best encoded against. Their anchors are in the caches that their own backups left on this host.

A relative is an image whose cache knows a tenth of the records that this image refers to so far. Of several those come first
that know most which this one does not; what is encoded against little counts more, lest fifty guests become a chain of fifty.

Memory  the anchors' tables of the relatives, mapped from their files, within a budget; 48 bytes a record that a cache knows.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deltaimg.engine.backup.anchor_cache import AnchorCache, map_anchor_cache
from deltaimg.engine.backup.cache_folder import ANCHORS, CONTENT
from deltaimg.engine.backup.content_cache import ContentCache
from deltaimg.kernels.layout import AnchorNames
from deltaimg.repo.slots import SlotTable

_MOST_CACHES = 32
"""So many of the latest written are looked at."""
_LEAST_SHARED = 0.1
_ABOUT_AS_MANY = 0.8


@dataclass(frozen=True, slots=True)
class _Found:
    """What a relative knows of some names: slots, how many, and how deep their records stand on average."""

    slots: npt.NDArray[np.int64]
    count: int
    depth: float


class Relatives:
    """Finds them, and slots of theirs."""

    def __init__(
        self,
        own_path: str | None,
        repository_id: str,
        table: SlotTable,
        contents: ContentCache,
        *,
        block_bytes: int,
        budget_bytes: int,
    ) -> None:
        """Args: own_path: of this image's anchors, beside which those of the others are; None knows no relatives."""
        self._table, self._contents = table, contents
        self._budget_bytes = budget_bytes
        self._candidates: list[tuple[str, AnchorCache]] = []
        self._chosen: list[AnchorCache] = []
        for path in _list_latest(own_path) if own_path else []:
            cache = map_anchor_cache(path, repository_id, block_bytes)
            if cache is not None:
                cache.number_slots(table, 0)
                self._candidates.append((path, cache))

    def __len__(self) -> int:
        return len(self._chosen)

    def choose(self, referenced: npt.NDArray[np.int64], own: npt.NDArray[np.int64]) -> None:
        """Take those that know of the records which the image refers to; their kept content can be read from then on.

        To be called until there are any: an image's first backup learns only as it goes what it refers to.

        Args:
            own: records whose anchors the image's own cache has.
        """
        if not len(referenced):
            return
        links = self._table.index.links
        ranked = []
        for path, cache in self._candidates:
            known = cache.records_in_view()
            shared = len(np.intersect1d(known, referenced))
            lacking = self._table.entries[np.setdiff1d(known, own)]
            if shared >= _LEAST_SHARED * len(referenced) and len(lacking):
                ranked.append((float((1 / (1.0 + links.depths[lacking].astype(np.float64))).sum()), path, cache))
        ranked.sort(key=lambda each: (-each[0], each[1]))
        left = self._budget_bytes
        for _, path, cache in ranked:
            if cache.table_bytes <= left:
                left -= cache.table_bytes
                self._chosen.append(cache)
                self._contents.look_also_in(path.removesuffix(ANCHORS) + CONTENT)
        if self._chosen:
            self._candidates.clear()

    def find(self, names: AnchorNames, depths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return a slot for each name, 0 for one that is not known.

        All are of one relative: of those that know about as many names, the one whose records stand least deep. A few more
        from each of the others would bring their depth and their records along.

        Args:
            depths: of each record that can be read, -1 for the others.
        """
        found = [self._find_in(cache, names, depths) for cache in self._chosen]
        most = max(each.count for each in found)
        best = min((each for each in found if each.count >= _ABOUT_AS_MANY * most), key=lambda each: each.depth)
        return best.slots

    def _find_in(self, cache: AnchorCache, names: AnchorNames, depths: npt.NDArray[np.int64]) -> _Found:
        slots = cache.slots_of(cache.find(names))
        known = np.flatnonzero(slots)
        found_depths = depths[self._table.records_of(slots[known])]
        slots[known[found_depths < 0]] = 0
        usable = found_depths[found_depths >= 0]
        return _Found(slots, len(usable), float(usable.mean()) if len(usable) else 0.0)


def _list_latest(own_path: str) -> list[str]:
    """Return the other images' caches, the latest first."""
    folder = os.path.dirname(own_path)
    try:
        found = [
            (each.stat().st_mtime_ns, each.path)
            for each in os.scandir(folder)
            if each.name.endswith(ANCHORS) and each.path != own_path
        ]
    except OSError:
        return []
    return [path for _, path in sorted(found, reverse=True)[:_MOST_CACHES]]
