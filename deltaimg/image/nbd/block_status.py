# SPDX-License-Identifier: Apache-2.0
"""Which extents of an export are holes or zeros, and which a dirty bitmap calls changed.

Memory     16 bytes an extent, and some 40 while they are put together. A server that reports more than `MAX_EXTENTS` of them
           is not asked any further: the rest is content, and changed.
Invariant  what the server did not report is content, and changed.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.image.extents import DATA, HOLE, ZERO, Bounds, Extents, merge_bounds
from deltaimg.image.nbd import protocol as nbd
from deltaimg.image.nbd.client import Client
from deltaimg.image.nbd.connection import NbdFailure
from deltaimg.model import GIB

MAX_EXTENTS: Final = 1 << 24
_QUERY_BYTES: Final = 2 * GIB
"""What is asked about at once; lengths have 32 bits."""
_IS_DIRTY: Final = 1
_UNKNOWN_FLAGS: Final = 1 << 31
"""Stands for what was not asked any more; no server sends it of these contexts."""


class BlockStatus(Struct, frozen=True):
    """The extents of each metadata context, from 0 to the end of the export."""

    ends: dict[str, npt.NDArray[np.int64]]
    flags: dict[str, npt.NDArray[np.uint32]]
    size_bytes: int

    def to_extents(self) -> Extents:
        """Return content, holes and zeros; all content where the server does not say."""
        flags = self.flags.get(nbd.ALLOCATION)
        if flags is None or not len(flags):
            return Extents.uniform(self.size_bytes)
        kinds = np.where(flags & nbd.STATUS_HOLE, np.uint8(HOLE), np.uint8(ZERO))
        # Not allocated does not mean that it reads as zeros: a disk may return what was there.
        statuses = np.where(flags & (nbd.STATUS_ZERO | _UNKNOWN_FLAGS) == nbd.STATUS_ZERO, kinds, np.uint8(DATA))
        starts = np.concatenate((np.zeros(1, np.int64), self.ends[nbd.ALLOCATION][:-1]))
        is_first = np.concatenate(([True], statuses[1:] != statuses[:-1]))
        return Extents(starts[is_first], statuses[is_first], self.size_bytes)

    def find_dirty(self, bitmap: str) -> Bounds | None:
        """Return what a dirty bitmap calls changed; None where the server has no such bitmap."""
        flags = self.flags.get(nbd.BITMAP + bitmap)
        if flags is None:
            return None
        ends = self.ends[nbd.BITMAP + bitmap]
        starts = np.concatenate((np.zeros(1, np.int64), ends[:-1]))
        return merge_bounds(np.stack((starts, ends), axis=1)[(flags & (_IS_DIRTY | _UNKNOWN_FLAGS)) != 0])


def read_block_status(client: Client, max_extents: int = MAX_EXTENTS) -> BlockStatus:
    """Ask for the extents of all contexts that were agreed on; raises ReadFailure or NbdFailure."""
    export = client.export
    ends: dict[str, list[npt.NDArray[np.int64]]] = {name: [] for name in export.contexts}
    flags: dict[str, list[npt.NDArray[np.uint32]]] = {name: [] for name in export.contexts}
    position = count = 0
    while position < export.size_bytes and export.contexts and count < max_extents:
        found = client.query_status(position, min(_QUERY_BYTES, export.size_bytes - position))
        # Contexts may go differently far; the last extent of each may go further than was asked.
        reached = {name: position + np.cumsum(status[:, 0], dtype=np.int64) for name, status in found.items()}
        stop = min(export.size_bytes, *(int(each[-1]) for each in reached.values()))
        if stop <= position or stop % export.min_block_bytes:
            raise NbdFailure("the server reports extents that lead nowhere")
        for name, each in reached.items():
            used = int(np.searchsorted(each, stop)) + 1
            ends[name].append(np.minimum(each[:used], stop))
            flags[name].append(found[name][:used, 1])
            count += used
        position = stop
    if position < export.size_bytes:
        for name in export.contexts:
            ends[name].append(np.array([export.size_bytes], np.int64))
            flags[name].append(np.array([_UNKNOWN_FLAGS], np.uint32))
    return BlockStatus(
        {name: np.concatenate(parts) for name, parts in ends.items() if parts},
        {name: np.concatenate(parts) for name, parts in flags.items() if parts},
        export.size_bytes,
    )
