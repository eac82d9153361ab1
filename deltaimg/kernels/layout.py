# SPDX-License-Identifier: Apache-2.0
"""What both implementations of the kernels hand out besides the layouts of `deltaimg.arrays`."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from typing_extensions import Buffer as Buffer  # noqa: PLC0414  the doubled name exports it
else:
    Buffer = object  # its name in `collections.abc` is as young as Python 3.12; only type checkers need it

KEY_BYTES = 32
MAX_DIGEST_BYTES = 32
CHUNK_BYTES = 1024
MAX_BLOCK_BYTES = 1 << 20


class BlockStatus(IntEnum):
    """What a scan found out about a block."""

    SAME = 0
    """Not zero, and its digest equals the base's."""
    ZERO_BLOCK = 1
    """Every byte is zero, whatever the base says."""
    CHANGED = 2
    """Neither."""


STATUS_RUN = np.dtype([("first", "<u4"), ("count", "<u4"), ("status", "<u4")])
"""Consecutive blocks of one scan with one status; `first` counts from the scan's first block."""

StatusRuns = npt.NDArray[np.void]
Octets = npt.NDArray[np.uint8]
AnchorNames = npt.NDArray[np.uint64]
AnchorTable = npt.NDArray[np.uint64]
"""One-dimensional, a multiple of `BUCKET_PLACES` long."""

BUCKET_PLACES = 8
ANCHOR_DISTANCE = 16
ANCHOR_WINDOW = 32
