# SPDX-License-Identifier: Apache-2.0
"""Find content that is stored already: every changed block whose digest is in the table becomes a reference.

Reads   digests of changed blocks in image order, and those of the slots that were added.
Memory  16 bytes a slot for its digest, 4.6 to 9.2 for its place in the hash table.
Always  equal means equal in 16 bytes of keyed BLAKE3; which slot is found depends only on the order in which they were added.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import DIGEST_BYTES, Digests, Slots
from deltaimg.kernels import insert_slots, match_digests

_MIN_CAPACITY = 1 << 12

_HINT_MASK = np.uint32((1 << 20) - 1)
"""A table of this many bits stays in a processor's cache; with a thousand wanted digests one in a thousand others passes."""


def find_candidates(known: Digests, wanted: Digests) -> npt.NDArray[np.int64]:
    """Return, ascending, the numbers of those `known` digests that may be among `wanted`, all that are and few others.

    For a few wanted digests this is much cheaper than a table of all that are known.
    """
    is_wanted = np.zeros(int(_HINT_MASK) + 1, np.bool_)
    is_wanted[_hints(wanted)] = True
    return np.flatnonzero(is_wanted[_hints(known)])


def _hints(digests: Digests) -> npt.NDArray[np.uint32]:
    hints: npt.NDArray[np.uint32] = np.ascontiguousarray(digests).view("<u4")[:, 0] & _HINT_MASK
    return hints


class Matcher:
    """Digests by slot, and new slots for digests that are not among them. Not thread-safe."""

    def __init__(self, digests: Digests, slot_count: int) -> None:
        self.digests = digests
        self.slot_count = slot_count
        self._known = 0
        self._table: npt.NDArray[np.uint32] = np.zeros(_MIN_CAPACITY, np.uint32)
        self._added: list[tuple[int, int]] = []

    @property
    def memory_bytes(self) -> int:
        """What digests and table take."""
        return self.digests.nbytes + self._table.nbytes

    def add_slots(self, first_slot: int, count: int) -> None:
        """Make the slots [first_slot, first_slot + count) findable; a digest known before keeps its slot."""
        self._reserve(count)
        insert_slots(self._table, self.digests, self.slot_count, first_slot, count)
        self._note_added(first_slot, count)

    def match(self, wanted: Digests) -> Slots:
        """Return the slot of each digest; an unknown one gets the next new slot, from `slot_count` before the call."""
        self._reserve(len(wanted))
        self._grow(len(wanted))
        before = self.slot_count
        slots, self.slot_count = match_digests(self._table, self.digests, self.slot_count, wanted)
        if self.slot_count > before:
            self._note_added(before, self.slot_count - before)
        return slots

    def number(self, digests: Digests) -> npt.NDArray[np.int64]:
        """Return the next new slots, one for each digest, though there may be slots with the same ones: these stay findable."""
        self._grow(len(digests))
        slots = np.arange(self.slot_count, self.slot_count + len(digests))
        self.digests[slots] = digests
        self.slot_count += len(digests)
        return slots

    def _grow(self, count: int) -> None:
        """Make room for `count` more digests."""
        if len(self.digests) < self.slot_count + count:
            grown = np.empty((max(len(self.digests) * 3 // 2, self.slot_count + count), DIGEST_BYTES), np.uint8)
            grown[: self.slot_count] = self.digests[: self.slot_count]
            self.digests = grown

    def _reserve(self, count: int) -> None:
        """Make room for `count` more entries."""
        wanted = (self._known + count) * 8 // 7 + 1
        if wanted <= len(self._table):
            return
        self._table = np.zeros(1 << wanted.bit_length(), np.uint32)
        for first_slot, length in self._added:
            insert_slots(self._table, self.digests, self.slot_count, first_slot, length)

    def _note_added(self, first_slot: int, count: int) -> None:
        self._known += count
        if self._added and sum(self._added[-1]) == first_slot:
            first_slot, count = self._added[-1][0], self._added.pop()[1] + count
        self._added.append((first_slot, count))
