# SPDX-License-Identifier: Apache-2.0
"""Stored records that this backup has expanded, in an unnamed file, so that single blocks of them can be read again.

Deltas of neighbouring blocks each need a few blocks of the same records. To expand these for each of them takes a quarter
of a backup's processor time, and to keep them in memory takes more memory than all the rest.

It is a hint: what is read may just have been overwritten and must be verified. What cannot be kept is expanded again.
"""

from __future__ import annotations

import os
import threading

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import ranges_of_blocks
from deltaimg.engine.unnamed_file import open_unnamed
from deltaimg.ids import RecordNumbers
from deltaimg.kernels import read_ranges
from deltaimg.model import GIB

BUDGET_BYTES = GIB


class ExpandedRecords:
    """Contents by record number, the oldest overwritten where the budget ends; any number of threads may use one. Close it."""

    def __init__(
        self, folder: str | None, block_bytes: int, record_blocks: int, budget_bytes: int = BUDGET_BYTES
    ) -> None:
        """Args: folder: for the file; that of the system if None. record_blocks: longer records are not kept."""
        self._folder, self._block_bytes, self._record_blocks = folder, block_bytes, record_blocks
        self._lock = threading.Lock()
        # Threads that write to one file at once wait for each other, and spin meanwhile.
        self._writing = threading.Lock()
        self._descriptor = -1
        self._places = np.empty(0, np.int64)
        """Of each record, -1 for one that is not kept."""
        self._records: list[int] = []
        """At each place."""
        self._most, self._taken = budget_bytes // (record_blocks * block_bytes), 0
        self._has_room = self._most > 0

    def put(self, record: int, content: memoryview) -> None:
        """Keep a record's content."""
        record_bytes = self._record_blocks * self._block_bytes
        if len(content) > record_bytes or not self._has_room or self._is_kept(record):
            return
        try:
            place = self._take_place()
            with self._writing:
                written = os.pwrite(self._descriptor, content, place * record_bytes)
            if written == len(content):
                self._name_place(place, record)
        except OSError:
            self._has_room = False  # where there is no room now there will be none soon

    def read(
        self,
        records: RecordNumbers,
        within: npt.NDArray[np.int64],
        places: npt.NDArray[np.int64],
        out: npt.NDArray[np.uint8],
    ) -> npt.NDArray[np.int64]:
        """Read blocks, block `within` of a record for each of `records`, into rows `places` of `out`.

        Returns:
            Numbers into `records` of those that were kept. What was read may be anything.
        """
        numbers = np.flatnonzero(records < len(self._places))
        stored = self._places[records[numbers]]
        numbers, stored = numbers[stored >= 0], stored[stored >= 0]
        if not len(numbers):
            return numbers
        ranges = ranges_of_blocks(stored * self._record_blocks + within[numbers], places[numbers], self._block_bytes)
        failed = read_ranges(self._descriptor, ranges, out.reshape(-1).data)
        return numbers if failed is None else numbers[:0]

    def close(self) -> None:
        """Forget everything."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._places, self._has_room = self._places[:0], False

    def _is_kept(self, record: int) -> bool:
        """Return whether another thread has kept a record meanwhile."""
        places = self._places
        return record < len(places) and bool(places[record] >= 0)

    def _take_place(self) -> int:
        """Free a place."""
        with self._lock:
            if self._descriptor < 0:
                if self._folder is not None:
                    os.makedirs(self._folder, 0o700, exist_ok=True)
                self._descriptor = open_unnamed(self._folder)
            place = self._taken % self._most
            self._taken += 1
            if place == len(self._records):
                self._records.append(-1)
            elif self._records[place] >= 0:
                self._places[self._records[place]] = -1
            self._records[place] = -1
            return place

    def _name_place(self, place: int, record: int) -> None:
        with self._lock:
            if record >= len(self._places):
                grown = np.full(2 * record + 1, -1, np.int64)
                grown[: len(self._places)] = self._places
                self._places = grown
            self._records[place] = record
            self._places[record] = place
