# SPDX-License-Identifier: Apache-2.0
"""The image as it was in the base, where change tracking kept a clone or a snapshot: what has changed can be read there.

It is a hint, as `image_blocks` is: what is read is verified.
"""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import ranges_of_blocks
from deltaimg.engine.backup.context import BackupContext
from deltaimg.ids import BlockIndexes
from deltaimg.kernels import read_ranges
from deltaimg.tracking.interface import KeepsImages


class BaseImage:
    """Any thread may read."""

    def __init__(self, descriptor: int | None, block_bytes: int) -> None:
        """Args: descriptor: of the clone or device, closed by `close`; None where there is none."""
        self._descriptor, self._block_bytes = descriptor, block_bytes
        self._whole_blocks = 0 if descriptor is None else os.lseek(descriptor, 0, os.SEEK_END) // block_bytes

    @classmethod
    def open(cls, context: BackupContext) -> BaseImage:
        """Open the clone of a backup's base, if there is one."""
        tracker, base = context.request.tracker, context.base.manifest
        if base is None or not isinstance(tracker, KeepsImages):
            return cls(None, context.block_bytes)
        return cls(tracker.open_image(base), context.block_bytes)

    def has(self, blocks: BlockIndexes) -> npt.NDArray[np.bool_]:
        """Return which blocks can be read, by their indexes, of which -1 is none."""
        return (blocks >= 0) & (blocks < self._whole_blocks)

    def read(self, blocks: BlockIndexes, places: npt.NDArray[np.int64], out: npt.NDArray[np.uint8]) -> bool:
        """Fill rows `places` of `out` with blocks that `has` has; return whether that was possible."""
        if self._descriptor is None or not len(blocks):
            return False
        ranges = ranges_of_blocks(blocks, places, self._block_bytes)
        return read_ranges(self._descriptor, ranges, out.reshape(-1).data) is None

    def close(self) -> None:
        """Close the clone."""
        if self._descriptor is not None:
            os.close(self._descriptor)
