# SPDX-License-Identifier: Apache-2.0
"""Read blocks of an image once more and compare them with a map of it."""

from __future__ import annotations

import numpy as np
from msgspec import Struct

from deltaimg.arrays import FIRST_SLOT, Digests, Runs
from deltaimg.image.extents import Bounds
from deltaimg.image.source import ImageSource
from deltaimg.kernels import SAME, ZERO_BLOCK, expand_runs, scan_blocks


class BlockCheck(Struct, frozen=True, eq=False):
    """Compares blocks of a source with a map; any thread."""

    source: ImageSource
    runs: Runs
    """The map."""
    digests: Digests
    """By slot."""
    block_key: bytes
    block_bytes: int

    def find_difference(self, start: int, end: int, buffer: memoryview) -> int | None:
        """Return the offset of the first block of [start, end) that reads otherwise than it is in the map; None if none does.

        Args:
            start: of a block. buffer: room for all these blocks.

        Raises:
            ImageError: the source cannot be read.
        """
        got = self.source.read_into(start, buffer[: end - start])
        if got < end - start:
            return start + got
        count = -(-got // self.block_bytes)
        buffer[got : count * self.block_bytes] = bytes(count * self.block_bytes - got)
        slots = expand_runs(self.runs, start // self.block_bytes, count)
        content = buffer[: count * self.block_bytes]
        _, statuses = scan_blocks(self.block_key, content, self.block_bytes, slots, self.digests)
        for status, first, length in zip(
            statuses["status"].tolist(), statuses["first"].tolist(), statuses["count"].tolist(), strict=True
        ):
            expected = slots[first : first + length]
            is_right = status == SAME or (status == ZERO_BLOCK and not (expected >= FIRST_SLOT).any())
            if not is_right:
                return int(start + first * self.block_bytes)
        return None

    def is_unreadable(self, start: int, end: int) -> bool:
        """Return whether some of [start, end) could not be read before: a failing disk reads now this, now that."""
        return any(lost.start < end and start < lost.end for lost in self.source.unreadable)


class Pieces:
    """Parts of an image cut into pieces of one length, the last of each extent perhaps shorter; numbered in order from 0."""

    def __init__(self, bounds: Bounds, piece_bytes: int) -> None:
        self._bounds, self._piece_bytes = bounds, piece_bytes
        self._counts = -(-(bounds[:, 1] - bounds[:, 0]) // piece_bytes)
        self._ends = np.cumsum(self._counts)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def locate(self, number: int) -> tuple[int, int]:
        """Return [start, end) of a piece in bytes."""
        extent = int(np.searchsorted(self._ends, number, side="right"))
        before = int(self._ends[extent] - self._counts[extent])
        start = int(self._bounds[extent, 0]) + (number - before) * self._piece_bytes
        return start, min(start + self._piece_bytes, int(self._bounds[extent, 1]))
