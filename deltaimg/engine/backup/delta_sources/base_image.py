# SPDX-License-Identifier: Apache-2.0
"""The image as it was in the base, where change tracking kept a clone or a snapshot: what has changed can be read there.

It is a hint, as `image_blocks` is: what is read is verified.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import ranges_of_blocks
from deltaimg.engine.backup.context import BackupContext
from deltaimg.ids import BlockIndexes
from deltaimg.tracking.interface import KeepsImages, KeptImage


class BaseImage:
    """Any thread may read."""

    def __init__(self, kept: KeptImage | None, block_bytes: int) -> None:
        """Args: kept: closed by `close`; None where there is none."""
        self._kept, self._block_bytes = kept, block_bytes
        self._whole_blocks = 0 if kept is None else kept.size_bytes // block_bytes

    @classmethod
    def open(cls, context: BackupContext) -> BaseImage:
        """Open what was kept of a backup's base, if there is anything."""
        tracker, base = context.request.tracker, context.base.manifest
        if base is None or not isinstance(tracker, KeepsImages):
            return cls(None, context.block_bytes)
        return cls(tracker.open_image(base), context.block_bytes)

    def has(self, blocks: BlockIndexes) -> npt.NDArray[np.bool_]:
        """Return which blocks can be read, by their indexes, of which -1 is none."""
        return (blocks >= 0) & (blocks < self._whole_blocks)

    def read(self, blocks: BlockIndexes, places: npt.NDArray[np.int64], out: npt.NDArray[np.uint8]) -> bool:
        """Fill rows `places` of `out` with blocks that `has` has; return whether that was possible."""
        if self._kept is None or not len(blocks):
            return False
        return self._kept.read(ranges_of_blocks(blocks, places, self._block_bytes), out.reshape(-1).data)

    def close(self) -> None:
        """Close it."""
        if self._kept is not None:
            self._kept.close()
