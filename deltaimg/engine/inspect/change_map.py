# SPDX-License-Identifier: Apache-2.0
"""Where in an image two snapshots differ, as a square map on which neighbours in the image stay neighbours.

The image is cut into equal cells along a Hilbert curve (D. Hilbert, 1891): a run of changes becomes a spot, not a scratch, and
what a file system keeps together stays together.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.engine.inspect.diff import Difference

Shares = npt.NDArray[np.float64]


class ChangeMap(Struct, frozen=True):
    """Of each cell in the order of the image, the share (0 to 1) that differs, and that is data in the newer snapshot."""

    size_bytes: int
    changed: Shares
    data: Shares


def map_changes(difference: Difference, cell_count: int) -> ChangeMap:
    """Cut the larger of the two images into `cell_count` cells."""
    size = max(difference.older.size_bytes, difference.newer.size_bytes)
    changed = np.array([(each.start, each.end) for each in difference.extents], np.int64).reshape(-1, 2)
    return ChangeMap(size, cover_cells(changed, size, cell_count), cover_cells(difference.data, size, cell_count))


def cover_cells(extents: npt.NDArray[np.int64], size_bytes: int, cell_count: int) -> Shares:
    """Return the share of each of `cell_count` cells of [0, size_bytes) that ascending extents cover; shape (count, 2)."""
    if not size_bytes:
        return np.zeros(cell_count)
    edges = np.linspace(0, size_bytes, cell_count + 1)
    lengths = extents[:, 1] - extents[:, 0]
    covered = np.stack((np.cumsum(lengths) - lengths, np.cumsum(lengths)), axis=1)
    # Extents that touch give the same point twice, which interpolation does not mind.
    points = np.concatenate(([0], extents.ravel(), [size_bytes]))
    values = np.concatenate(([0], covered.ravel(), [lengths.sum()]))
    shares: Shares = np.diff(np.interp(edges, points, values)) / (size_bytes / cell_count)
    return np.clip(shares, 0, 1)


def lay_on_curve(values: Shares, order: int) -> Shares:
    """Return a square of 2 ** order rows and columns with 4 ** order `values` along a Hilbert curve from its corner."""
    rest = np.arange(4**order)
    x, y = np.zeros_like(rest), np.zeros_like(rest)
    for level in range(order):
        side = 1 << level
        right = (rest >> 1) & 1
        up = (rest ^ right) & 1
        turns = up == 0
        flips = turns & (right == 1)
        x, y = np.where(flips, side - 1 - x, x), np.where(flips, side - 1 - y, y)
        x, y = np.where(turns, y, x), np.where(turns, x, y)
        x, y = x + side * right, y + side * up
        rest >>= 2
    square = np.empty((1 << order, 1 << order))
    square[y, x] = values
    return square
