# SPDX-License-Identifier: Apache-2.0
"""CRC-32C, of many pieces of one length at a time: file systems keep it of each of their structures.

Source  RFC 3720, appendix B.4; the polynomial is reflected, as usual.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

_POLYNOMIAL = 0x82F63B78
START = 0xFFFFFFFF

Sums = npt.NDArray[np.uint32]


@lru_cache(maxsize=1)
def _table() -> Sums:
    values = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        values = np.where(values & 1, (values >> 1) ^ np.uint32(_POLYNOMIAL), values >> 1)
    return values


def update_sums(sums: Sums, pieces: npt.NDArray[np.uint8]) -> Sums:
    """Return the sum of each piece, continued from the one in `sums`, without a final inversion.

    Args:
        sums: shape (count,). pieces: shape (count, length).
    """
    table = _table()
    for column in np.ascontiguousarray(pieces.T):
        sums = table[(sums ^ column) & 0xFF] ^ (sums >> 8)
    return sums


def find_sum(content: bytes, start: int = START) -> int:
    """Return the sum of one piece, without a final inversion."""
    pieces = np.frombuffer(content, np.uint8).reshape(1, -1)
    return int(update_sums(np.full(1, start, np.uint32), pieces)[0])
