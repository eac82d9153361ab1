# SPDX-License-Identifier: Apache-2.0
"""Blocks that both sides have and that hold some of the same bytes as new ones: what deltas are made against.

Both sides have what did not change, and what was sent before. So the near side needs nothing of the old image: it reads these
blocks of its own, and names them. Anchors of all of the image are collected while it is read; those of unchanged blocks go into
a table, and those of each batch once it is sent.

Memory  a table of up to 64 MiB, and about as much for anchors, which are the sparser the more content there is.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import expand_ranges, sparse_zeros
from deltaimg.delta.anchors import Anchors, plan_table
from deltaimg.delta.sources import choose_slots
from deltaimg.engine.mirror.table import Blocks
from deltaimg.format.mirror import BLOCK_BYTES
from deltaimg.kernels.layout import BUCKET_PLACES, AnchorNames

MAX_SOURCES: Final = 1024
"""Blocks that one batch may be encoded against."""
_TABLE_BYTES = 64 << 20
_FEWEST_VOTES = 4
_LEAST_SHARE = 0.02
"""Of a batch's anchors that must be found."""


class SimilarBlocks:
    """Anchors of an image, and the table of those that the far side has, too."""

    def __init__(self, content_bytes: int) -> None:
        """Args: content_bytes: how much is going to be read."""
        buckets, shift = plan_table(content_bytes, _TABLE_BYTES)
        self._anchors = Anchors(sparse_zeros(buckets * BUCKET_PLACES, np.uint64), shift)
        self._found: list[tuple[int, AnchorNames, Blocks]] = []
        self._names: AnchorNames = np.zeros(0, np.uint64)
        self._blocks: Blocks = np.zeros(0, np.int64)

    def collect(self, first_block: int, content: memoryview) -> None:
        """Take the anchors of some blocks; any thread, any order."""
        names, positions = self._anchors.collect(content)
        self._found.append((first_block, names, first_block + positions.astype(np.int64) // BLOCK_BYTES))

    def begin(self, changed: npt.NDArray[np.bool_]) -> None:
        """Begin with what did not change. Args: changed: for each block of the image, whether it did."""
        found = sorted(self._found, key=lambda each: each[0])
        self._found = []
        self._names = np.concatenate([self._names, *(names for _, names, _ in found)])
        self._blocks = np.concatenate([self._blocks, *(blocks for _, _, blocks in found)])
        is_shared = ~changed[self._blocks]
        self._remember(self._names[is_shared], self._blocks[is_shared])

    def choose(self, blocks: Blocks, lacking: Blocks) -> Blocks:
        """Return what to encode `lacking` against, ascending; from now on all of `blocks` may be chosen as well.

        Args:
            blocks: those of a batch. lacking: those of them that are sent.
        """
        names = self._names[self._places_of(lacking)]
        sources = self._anchors.find(names).astype(np.int64)
        sources = sources[sources > 0] - 1
        places = self._places_of(blocks)
        self._remember(self._names[places], self._blocks[places])
        if len(sources) < max(_FEWEST_VOTES, _LEAST_SHARE * len(names)):
            return np.zeros(0, np.int64)
        nominated, votes = np.unique(sources, return_counts=True)
        return choose_slots(nominated, votes.astype(np.float64), nominated, len(nominated), MAX_SOURCES)

    def _places_of(self, blocks: Blocks) -> npt.NDArray[np.int64]:
        """Return where the anchors of some blocks are."""
        firsts = np.searchsorted(self._blocks, blocks)
        return expand_ranges(firsts, np.searchsorted(self._blocks, blocks, side="right") - firsts)

    def _remember(self, names: AnchorNames, blocks: Blocks) -> None:
        self._anchors.remember(names, (blocks + 1).astype(np.uint32))
