# SPDX-License-Identifier: Apache-2.0
"""Similar images: other images that share records with this one, and whose new content this one may get, too.

Guests of one template refer to the same records and get the same upgrades, whose blocks are seldom equal. What the first guest
stored is the best delta source for the others. Its anchors are in the cache that its own backup left on this host.

An image is similar if its cache has a tenth of the records that this image refers to so far. Of several, those come first
that have most records which this image lacks; shallow records count more, so that fifty guests do not become a chain of fifty.

Memory  the anchor tables of similar images, mapped from their files, within a budget; 48 bytes for each record in a cache.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.engine.backup.cache_folder import ImageCache
from deltaimg.engine.backup.delta_sources.anchor_cache import AnchorCache, map_anchor_cache
from deltaimg.ids import RecordNumbers, SlotNumbers
from deltaimg.kernels.layout import AnchorNames
from deltaimg.repo.slots import SlotTable

_MOST_CACHES = 32
"""At most this many caches are considered, the latest written ones."""
_LEAST_SHARED = 0.1
_ABOUT_AS_MANY = 0.8


class _Found(Struct, frozen=True):
    """What a similar image has for some anchors: their slots, how many, and the mean delta depth of their records."""

    slots: SlotNumbers
    count: int
    depth: float


class SimilarImages:
    """Finds similar images, and what their records offer."""

    def __init__(self, cache: ImageCache | None, table: SlotTable, block_bytes: int, budget_bytes: int) -> None:
        """Read what the host keeps of other images of the repository.

        Args:
            cache: of this image; None if the host keeps nothing.
            budget_bytes: how much of the others' anchor tables may be mapped.
        """
        self._table, self._budget_bytes = table, budget_bytes
        self._candidates: list[tuple[ImageCache, AnchorCache]] = []
        self._chosen: list[AnchorCache] = []
        self.content_folders: list[str] = []
        """Where backups of the similar images kept content of their records."""
        for other in cache.list_others(_MOST_CACHES) if cache else []:
            anchors = map_anchor_cache(other.anchors_path, other.repository_id, block_bytes)
            if anchors is not None:
                anchors.number_slots(table, 0)
                self._candidates.append((other, anchors))

    def __len__(self) -> int:
        return len(self._chosen)

    def choose(self, referenced: RecordNumbers, own: RecordNumbers) -> None:
        """Look for similar images; call it until there are some: what a first backup refers to is known only during the run.

        Args:
            referenced: records of the table that the image refers to so far. own: those that its own cache has anchors of.
        """
        if not len(referenced):
            return
        ranked = []
        for other, anchors in self._candidates:
            known = anchors.numbered_records()
            shared = len(np.intersect1d(known, referenced))
            lacking = np.setdiff1d(known, own)
            if shared >= _LEAST_SHARED * len(referenced) and len(lacking):
                depths = self._table.index.links.depths[self._table.entries[lacking]].astype(np.float64)
                ranked.append((float((1 / (1.0 + depths)).sum()), other, anchors))
        ranked.sort(key=lambda each: (-each[0], each[1].anchors_path))
        left_bytes = self._budget_bytes
        for _, other, anchors in ranked:
            if anchors.table_bytes <= left_bytes:
                left_bytes -= anchors.table_bytes
                self._chosen.append(anchors)
                self.content_folders.append(other.content_path)
        if self._chosen:
            self._candidates.clear()

    def find(self, names: AnchorNames, depths: npt.NDArray[np.int64]) -> SlotNumbers:
        """Return a slot for each anchor, 0 for one that is not known.

        All slots are of one image: of those that have about as many of the anchors, the one with the shallowest records. A
        few more slots from each of the others would add their depth and their records.

        Args:
            depths: delta depth of each record of the table that can be read, -1 for the others.
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
