# SPDX-License-Identifier: Apache-2.0
"""Changed blocks on their way from the scan into records."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.arrays import Digests, Slots, expand_ranges
from deltaimg.engine.scan import ScannedSpan
from deltaimg.kernels import CHANGED, gather_blocks


class ChangedBlocks(Struct, frozen=True):
    """Blocks `indexes` of `content` are blocks `blocks` of the image."""

    content: memoryview
    indexes: Slots
    blocks: npt.NDArray[np.uint64]
    digests: Digests

    def copy(self, block_bytes: int) -> ChangedBlocks:
        """Return the same blocks in memory of their own, and nothing else in it."""
        content = gather_blocks(self.content, block_bytes, self.indexes)
        return ChangedBlocks(content.data, np.arange(len(self.indexes), dtype=np.uint32), self.blocks, self.digests)

    def choose(self, numbers: npt.NDArray[np.integer] | slice) -> ChangedBlocks:
        """Return some of them."""
        return ChangedBlocks(self.content, self.indexes[numbers], self.blocks[numbers], self.digests[numbers])


def take_changed(span: ScannedSpan, content: memoryview) -> ChangedBlocks:
    """Return the changed blocks of a span, in the span's own memory.

    Args:
        content: of the span.
    """
    changed = span.statuses[span.statuses["status"] == CHANGED]
    indexes = expand_ranges(changed["first"].astype(np.int64), changed["count"].astype(np.int64)).astype(np.uint32)
    blocks = indexes.astype(np.uint64) + np.uint64(span.first_block)
    return ChangedBlocks(content, indexes, blocks, span.digests[indexes])
