# SPDX-License-Identifier: Apache-2.0
"""A clone or a device that was kept of the base, as the image that it is."""

from __future__ import annotations

import os

from deltaimg.arrays import Ranges
from deltaimg.kernels import read_ranges


class KeptFile:
    """Reads by a descriptor; as `interface.KeptImage` has it."""

    def __init__(self, descriptor: int) -> None:
        """Args: descriptor: closed by `close`. Raises OSError."""
        self._descriptor = descriptor
        self.size_bytes = os.lseek(descriptor, 0, os.SEEK_END)

    def read(self, ranges: Ranges, out: memoryview) -> bool:
        """Fill parts of `out`; return whether all of them could be read."""
        return read_ranges(self._descriptor, ranges, out) is None

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._descriptor)
