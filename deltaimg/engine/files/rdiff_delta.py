# SPDX-License-Identifier: Apache-2.0
"""A librsync delta, written from operations.

Writes     commands (librsync, doc/formats.md): literals, copies, the end. Neighbouring copies become one.
Memory     the runs of zero blocks that the old file has.
Invariant  the commands make the new file from its first to its last byte, in order; zeros become copies of old zeros, where the
           old file has any, since the format has no command for them.
"""

from __future__ import annotations

import numpy as np

from deltaimg.arrays import find_stretches
from deltaimg.engine.files.rdiff_search import RdiffSearch
from deltaimg.engine.files.stitch import Op
from deltaimg.engine.files.streams import Output
from deltaimg.format.delta import COPY, LITERAL, ZERO
from deltaimg.format.rdiff import DELTA_END, DELTA_HEAD, build_copy, build_literal_head


class RdiffDeltaWriter:
    """Writes operations as commands; zeros as copies of old zeros, as long as there are any."""

    def __init__(self, search: RdiffSearch, delta: Output) -> None:
        self._delta, self._size = delta, search.block_bytes
        runs = find_stretches(search.is_zero)
        longest = int(np.argmax(runs[:, 1] - runs[:, 0])) if len(runs) else -1
        self._zeros = (
            (0, 0) if longest < 0 else (int(runs[longest, 0]) * self._size, int(runs[longest, 1]) * self._size)
        )
        self._runs = runs
        self._done = 0
        self._copy = (0, 0)
        """Offset and length of a copy that waits for one that continues it."""
        self.bytes_of = {ZERO: 0, COPY: 0, LITERAL: 0}
        delta.write(DELTA_HEAD)

    def add(self, op: Op) -> None:
        """Take the next operation."""
        self.bytes_of[op.kind] += op.length
        if op.kind == COPY:
            self._add_copy(op.old_offset, op.length)
        elif op.literal is not None:
            self._flush()
            self._delta.write(build_literal_head(op.length))
            self._delta.write(op.literal)
        else:
            self._add_zeros(op.length)
        self._done += op.length

    def finish(self) -> None:
        """Write what waits, and the end."""
        self._flush()
        self._delta.write(DELTA_END)

    def _add_copy(self, offset: int, length: int) -> None:
        if self._copy[1] and sum(self._copy) == offset:
            self._copy = (self._copy[0], self._copy[1] + length)
            return
        self._flush()
        self._copy = (offset, length)

    def _flush(self) -> None:
        if self._copy[1]:
            self._delta.write(build_copy(*self._copy))
        self._copy = (0, 0)

    def _add_zeros(self, length: int) -> None:
        """Make zeros of old ones: those at the same place, where there are some, else of the longest run that there is."""
        at, end = self._done, self._done + length
        place = int(np.searchsorted(self._runs[:, 1] * self._size, at, side="right"))
        while at < end:
            start, stop = (self._runs[place] * self._size).tolist() if place < len(self._runs) else (end, end)
            if at < start:
                stop = min(start, end)
                self._copy_zeros(stop - at)
            else:
                stop = min(stop, end)
                self._add_copy(at, stop - at)
                place += 1
            at = stop

    def _copy_zeros(self, length: int) -> None:
        start, end = self._zeros
        zeros = bytes(min(length, 1 << 20)) if start == end else b""
        while length:
            if start == end:
                piece = min(length, len(zeros))
                self._flush()
                self._delta.write(build_literal_head(piece))
                self._delta.write(memoryview(zeros)[:piece])
            else:
                piece = min(length, end - start)
                self._add_copy(start, piece)
            length -= piece
