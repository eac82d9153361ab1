# SPDX-License-Identifier: Apache-2.0
"""A sample of an image that was backed up, read once more and compared: it finds writes that the kernel does not report.

Those of another host to a shared disk, those of this host to what lies under the device, those through a memory map, and memory
that returns other bytes than were written.
"""

from __future__ import annotations

import random

from deltaimg.engine.backup.block_check import BlockCheck, Pieces
from deltaimg.engine.pipeline import ThreadBuffer
from deltaimg.image.extents import Bounds
from deltaimg.model import KIB

_PIECE_BYTES = 64 * KIB
_PIECES = 32
"""2 MiB in all: a third of a second on a disk that seeks."""


def find_changed_piece(check: BlockCheck, bounds: Bounds, chance: random.Random) -> int | None:
    """Return the offset of a block that reads otherwise than it is in the map, among those of a sample; None if there is none.

    Args:
        bounds: what was read, of whole blocks.

    Raises:
        ImageError: the source cannot be read.
    """
    piece_bytes = max(_PIECE_BYTES, check.block_bytes)
    buffer = ThreadBuffer().get(piece_bytes)
    for start, end in _choose_pieces(bounds, piece_bytes, chance):
        if check.is_unreadable(start, end):
            continue
        found = check.find_difference(start, end, buffer)
        if found is not None:
            return found
    return None


def _choose_pieces(bounds: Bounds, piece_bytes: int, chance: random.Random) -> list[tuple[int, int]]:
    """Return [start, end) of pieces of what was read, ascending: the first, where superblocks are, and others by chance."""
    pieces = Pieces(bounds, piece_bytes)
    total = len(pieces)
    numbers = range(total) if total <= _PIECES else sorted({0, *(chance.randrange(total) for _ in range(_PIECES - 1))})
    return [pieces.locate(number) for number in numbers]
