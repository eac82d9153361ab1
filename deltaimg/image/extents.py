# SPDX-License-Identifier: Apache-2.0
"""The extents of an image: which bytes are data, and of which ones something is known without reading them.

Memory     9 bytes an extent.
Invariant  extents cover the image without a gap: each begins where the one before it ends, the first at 0, the last ends with
           the image. A hole is therefore always something that an image source reported, never what it left out.
Source     The statuses follow NBD's block status ("base:allocation") and qemu's dirty bitmaps; `free` is nbdkit's and
           e2image's word for blocks that the guest's file system does not use.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.arrays import distinct
from deltaimg.model import Extent

Bounds = npt.NDArray[np.int64]
"""Shape (count, 2): [start, end) in bytes, ascending, no two overlap or touch."""


class ExtentStatus(IntEnum):
    """What is known of an extent before it is read."""

    DATA = 0
    """Nothing: it must be read."""
    HOLE = 1
    """Not allocated, and reads as zeros."""
    ZERO = 2
    """Reads as zeros; whether it is allocated is not known."""
    FREE = 3
    """Not used by the guest's file system: its content does not matter, and may be anything."""
    UNCHANGED = 4
    """As it was at the point in time that change tracking compares with; for a backup, in its base snapshot."""


DATA, HOLE, ZERO, FREE, UNCHANGED = ExtentStatus
NO_BOUNDS: Final = np.empty((0, 2), np.int64)
EMPTY: Final = (HOLE, ZERO)
"""What reads as zeros without being read."""
NOT_EMPTY: Final = (DATA, FREE, UNCHANGED)
"""What must be read by whoever needs the content of all bytes and has no base."""


class ImageExtent(Extent, frozen=True):
    """Bytes [start, end) of an image, and what is known of them."""

    status: ExtentStatus


class Extents(Struct, frozen=True, eq=False):
    """The extents of an image of `size_bytes`, in ascending order."""

    starts: npt.NDArray[np.int64]
    """Shape (count,): the offset of each extent in bytes; it ends where the next one starts, the last at `size_bytes`."""
    statuses: npt.NDArray[np.uint8]
    """Shape (count,): the ExtentStatus of each."""
    size_bytes: int

    @classmethod
    def uniform(cls, size_bytes: int, status: ExtentStatus = DATA) -> Extents:
        """Return one extent for the whole image; none for an image of no bytes."""
        count = int(size_bytes > 0)
        return cls(np.zeros(count, np.int64), np.full(count, status, np.uint8), size_bytes)

    @classmethod
    def from_bounds(cls, bounds: Bounds, size_bytes: int, *, inside: ExtentStatus, outside: ExtentStatus) -> Extents:
        """Return extents with one status inside `bounds`, which end at `size_bytes` at most, and another outside of them."""
        edges = np.concatenate(([0], bounds.ravel(), [size_bytes]))
        statuses = np.full(len(edges) - 1, outside, np.uint8)
        statuses[1::2] = inside
        return cls._normalise(edges[:-1], statuses, size_bytes)

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[ImageExtent]:
        """Yield each extent."""
        for start, end, status in zip(self.starts.tolist(), self._ends().tolist(), self.statuses.tolist(), strict=True):
            yield ImageExtent(start, end, ExtentStatus(status))

    def find(self, *statuses: ExtentStatus) -> Bounds:
        """Return where the image has one of `statuses`, extents that touch joined."""
        chosen = np.isin(self.statuses, statuses)
        edges = np.flatnonzero(np.diff(np.concatenate(([False], chosen, [False]))))
        return np.append(self.starts, self.size_bytes)[edges].reshape(-1, 2)

    def count_bytes(self, *statuses: ExtentStatus) -> int:
        """Return how many bytes have one of `statuses`."""
        return int((self._ends() - self.starts)[np.isin(self.statuses, statuses)].sum())

    def clip(self, size_bytes: int) -> Extents:
        """Return the extents of the image's first `size_bytes`."""
        count = int(np.searchsorted(self.starts, size_bytes))
        return Extents(self.starts[:count], self.statuses[:count], min(size_bytes, self.size_bytes))

    def without_base(self, base_bytes: int = 0) -> Extents:
        """Return the extents with UNCHANGED made DATA from `base_bytes` on: the base has nothing there to be equal to."""
        starts, statuses = self.starts, self.statuses
        if not (statuses == UNCHANGED).any():
            return self
        place = int(np.searchsorted(starts, base_bytes))
        if place and base_bytes < self.size_bytes and base_bytes not in starts[place : place + 1]:
            starts = np.insert(starts, place, base_bytes)
            statuses = np.insert(statuses, place, statuses[place - 1])
        is_beyond = (starts >= base_bytes) & (statuses == UNCHANGED)
        return self._normalise(starts, np.where(is_beyond, np.uint8(DATA), statuses), self.size_bytes)

    def mark_unchanged(self, changed: Bounds) -> Extents:
        """Return the extents with DATA made UNCHANGED wherever it is not in `changed`."""
        return self._mark_data(changed, UNCHANGED, is_inside=False)

    def mark_free(self, free: Bounds) -> Extents:
        """Return the extents with DATA made FREE wherever it is in `free`."""
        return self._mark_data(free, FREE, is_inside=True)

    def _mark_data(self, bounds: Bounds, status: ExtentStatus, *, is_inside: bool) -> Extents:
        """Return the extents with DATA made `status` inside `bounds`, or everywhere else."""
        edges = distinct(self.starts, np.clip(bounds.ravel(), 0, self.size_bytes))
        edges = edges[edges < self.size_bytes]
        statuses = self.statuses[np.searchsorted(self.starts, edges, side="right") - 1] if len(edges) else self.statuses
        is_marked = (are_inside(edges, bounds) == is_inside) & (statuses == DATA)
        return self._normalise(edges, np.where(is_marked, np.uint8(status), statuses), self.size_bytes)

    def align(self, block_bytes: int) -> Extents:
        """Return extents of whole blocks, but for the image's last block, which may be part filled.

        A block with more than one status is ZERO where all of them are empty, else DATA, so that it is read.
        """
        joined = self._normalise(self.starts, self.statuses, self.size_bytes)
        first_blocks = -(-joined.starts // block_bytes)
        end_blocks = joined._ends() // block_bytes
        if len(joined):
            end_blocks[-1] = -(-self.size_bytes // block_bytes)
        is_whole = end_blocks > first_blocks
        mixed = distinct(joined.starts[joined.starts % block_bytes != 0] // block_bytes) * block_bytes
        starts = np.concatenate((first_blocks[is_whole] * block_bytes, mixed))
        statuses = np.concatenate((joined.statuses[is_whole], joined._merge_statuses(mixed, block_bytes)))
        order = np.argsort(starts, kind="stable")
        return self._normalise(starts[order], statuses[order], self.size_bytes)

    def _merge_statuses(self, starts: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.uint8]:
        """Return the status of each stretch of `length` bytes that more than one extent has a part of."""
        is_content = ~np.isin(self.statuses, EMPTY)
        content_before = np.concatenate(([0], np.cumsum(is_content)))
        firsts = np.searchsorted(self.starts, starts, side="right") - 1
        ends = np.searchsorted(self.starts, starts + length, side="left")
        has_content = content_before[ends] > content_before[firsts]
        return np.where(has_content, np.uint8(DATA), np.uint8(ZERO))

    def _ends(self) -> npt.NDArray[np.int64]:
        return np.append(self.starts[1:], self.size_bytes) if len(self) else self.starts.copy()

    @classmethod
    def _normalise(cls, starts: npt.NDArray[np.int64], statuses: npt.NDArray[np.uint8], size_bytes: int) -> Extents:
        """Return extents without empty ones, neighbours of one status joined."""
        is_kept = np.append(starts[1:], size_bytes) > starts
        starts, statuses = starts[is_kept], statuses[is_kept]
        is_first = np.concatenate((np.ones(min(1, len(statuses)), np.bool_), statuses[1:] != statuses[:-1]))
        return cls(starts[is_first], statuses[is_first], size_bytes)


def merge_bounds(bounds: npt.NDArray[np.int64]) -> Bounds:
    """Return what lies in any of some [start, end), which may overlap, be empty, and come in any order."""
    chosen = bounds[bounds[:, 0] < bounds[:, 1]]
    if not len(chosen):
        return NO_BOUNDS
    chosen = chosen[np.argsort(chosen[:, 0], kind="stable")]
    ends = np.maximum.accumulate(chosen[:, 1])
    breaks = np.flatnonzero(chosen[1:, 0] > ends[:-1])
    firsts = np.concatenate((np.zeros(1, np.int64), breaks + 1))
    return np.stack((chosen[firsts, 0], ends[np.append(breaks, len(ends) - 1)]), axis=1)


def subtract_bounds(bounds: Bounds, removed: Bounds) -> Bounds:
    """Return what lies in `bounds` and not in `removed`."""
    edges = distinct(bounds.ravel(), removed.ravel())
    is_left = are_inside(edges[:-1], bounds) & ~are_inside(edges[:-1], removed)
    return merge_bounds(np.stack((edges[:-1], edges[1:]), axis=1)[is_left]) if len(edges) else NO_BOUNDS


def are_inside(offsets: npt.NDArray[np.int64], bounds: Bounds) -> npt.NDArray[np.bool_]:
    """Return for each offset whether it lies in `bounds`."""
    inside: npt.NDArray[np.bool_] = np.searchsorted(bounds.ravel(), offsets, side="right") % 2 == 1
    return inside
