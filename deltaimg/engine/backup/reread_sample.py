# SPDX-License-Identifier: Apache-2.0
"""A sample of an image that was backed up, read once more and compared: it finds writes that the kernel does not report.

Those of another host to a shared disk, those of this host to what lies under the device, those through a memory map, and memory
that returns other bytes than were written.
"""

from __future__ import annotations

import mmap
import random

import numpy as np

from deltaimg.arrays import FIRST_SLOT, Digests, Runs
from deltaimg.image.extents import Bounds
from deltaimg.image.source import ImageSource
from deltaimg.kernels import SAME, ZERO_BLOCK, expand_runs, scan_blocks
from deltaimg.model import KIB

_PIECE_BYTES = 64 * KIB
_PIECES = 32
"""2 MiB in all: a third of a second on a disk that seeks."""


def find_changed_piece(
    source: ImageSource,
    bounds: Bounds,
    runs: Runs,
    digests: Digests,
    *,
    block_key: bytes,
    block_bytes: int,
    chance: random.Random,
) -> int | None:
    """Return the offset of a block that reads otherwise than it is in the map, among those of a sample; None if there is none.

    Args:
        bounds: what was read, of whole blocks. runs: the image's map. digests: by slot.

    Raises:
        ImageError: the source cannot be read.
    """
    piece_bytes = max(_PIECE_BYTES, block_bytes)
    buffer = memoryview(mmap.mmap(-1, piece_bytes))
    for start, end in _choose_pieces(bounds, piece_bytes, chance):
        if any(lost.start < end and start < lost.end for lost in source.unreadable):
            continue  # a failing disk reads now this, now that
        got = source.read_into(start, buffer[: end - start])
        if got < end - start:
            return start + got
        count = -(-got // block_bytes)
        buffer[got : count * block_bytes] = bytes(count * block_bytes - got)
        slots = expand_runs(runs, start // block_bytes, count)
        _, statuses = scan_blocks(block_key, buffer[: count * block_bytes], block_bytes, slots, digests)
        for status, first, length in zip(
            statuses["status"].tolist(), statuses["first"].tolist(), statuses["count"].tolist(), strict=True
        ):
            expected = slots[first : first + length]
            is_right = status == SAME or (status == ZERO_BLOCK and not (expected >= FIRST_SLOT).any())
            if not is_right:
                return int(start + first * block_bytes)
    return None


def _choose_pieces(bounds: Bounds, piece_bytes: int, chance: random.Random) -> list[tuple[int, int]]:
    """Return [start, end) of pieces of what was read, ascending: the first, where superblocks are, and others by chance."""
    lengths = bounds[:, 1] - bounds[:, 0]
    counts = -(-lengths // piece_bytes)
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    numbers = range(total) if total <= _PIECES else sorted({0, *(chance.randrange(total) for _ in range(_PIECES - 1))})
    pieces = []
    for number in numbers:
        extent = int(np.searchsorted(ends, number, side="right"))
        start = int(bounds[extent, 0]) + (number - int(ends[extent] - counts[extent])) * piece_bytes
        pieces.append((start, min(start + piece_bytes, int(bounds[extent, 1]))))
    return pieces
