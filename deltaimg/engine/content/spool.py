# SPDX-License-Identifier: Apache-2.0
"""Blocks that delta records will need, kept from when their own record was expanded until then.

Memory  13 bytes for each block to be kept; the blocks themselves up to `MEMORY_BYTES`, else in a file that has no name.
"""

from __future__ import annotations

import errno
import os
import tempfile
import weakref

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.arrays import Flags, Ranges, Slots, distinct, expand_ranges, ranges_of_blocks
from deltaimg.engine.unnamed_file import open_unnamed
from deltaimg.errors import ImageError
from deltaimg.ids import RecordNumbers, SlotNumbers
from deltaimg.kernels import gather_blocks, read_ranges, write_ranges
from deltaimg.model import MIB
from deltaimg.repo.slots import SlotTable

MEMORY_BYTES = 64 * MIB


class KeptSlots(Struct, frozen=True):
    """The slots whose blocks are kept, and where."""

    slots: SlotNumbers
    """Ascending, each once."""
    places: npt.NDArray[np.int32]
    """Of each slot, in blocks. Two slots have the same place only if the first is needed no more when the second is put."""

    @classmethod
    def apart(cls, slots: SlotNumbers) -> KeptSlots:
        """Keep each of `slots` for good."""
        return cls(slots, np.arange(len(slots), dtype=np.int32))

    @property
    def place_count(self) -> int:
        """How many blocks there must be room for."""
        return int(self.places.max(initial=-1)) + 1


class Spool:
    """Keeps the content of a fixed set of slots; any thread may put, and get what was put before. Close it in the end."""

    def __init__(self, kept: KeptSlots, block_bytes: int, folder: str | None = None) -> None:
        """Args: folder: for the file; the system's own for temporary files if None."""
        self.slots, self._places, self._block_bytes = kept.slots, kept.places, block_bytes
        self.size_bytes = kept.place_count * block_bytes
        self._is_there = np.zeros(len(kept.slots), np.bool_)
        self._folder = folder or tempfile.gettempdir()
        self._descriptor = -1
        if not self.size_bytes:
            return
        try:
            self._descriptor = self._open()
        except OSError as error:
            raise self._failure(error.errno) from error
        self._finalizer = weakref.finalize(self, os.close, self._descriptor)

    def put(self, first_slot: int, content: memoryview) -> None:
        """Keep those blocks of a record's content that are wanted; `first_slot` is that of its first block."""
        count = len(content) // self._block_bytes
        first, last = np.searchsorted(self.slots, (first_slot, first_slot + count)).tolist()
        if first == last:
            return
        indexes: Slots = (self.slots[first:last] - first_slot).astype(np.uint32)
        self._write(first, gather_blocks(content, self._block_bytes, indexes).data)

    def put_blocks(self, first_slot: int, slot_count: int, blocks: bytes) -> None:
        """Keep the blocks that are wanted of a record, given one after another and no others."""
        first, last = np.searchsorted(self.slots, (first_slot, first_slot + slot_count)).tolist()
        assert len(blocks) == (last - first) * self._block_bytes
        if blocks:
            self._write(first, memoryview(blocks))

    def _write(self, first: int, kept: memoryview) -> None:
        """Write the blocks of slots that follow each other, the first of which is the spool's slot number `first`."""
        count = len(kept) // self._block_bytes
        places = self._places[first : first + count]
        failed = write_ranges(
            self._descriptor, ranges_of_blocks(places, np.arange(count), self._block_bytes), kept, len(kept)
        )
        if failed is not None:
            raise self._failure(failed.error_number) from OSError(failed.error_number, "")
        self._is_there[first : first + count] = True

    def has(self, slots: SlotNumbers) -> Flags:
        """Return which of these slots, all of which it is to keep, were put."""
        return self._is_there[np.searchsorted(self.slots, slots)]

    def find(self, slots: SlotNumbers) -> npt.NDArray[np.int32]:
        """Return where each slot is kept, in blocks, for `read`."""
        return self._places[np.searchsorted(self.slots, slots)]

    def read(self, ranges: Ranges, out: memoryview) -> None:
        """Fill ranges of `out` with what was put."""
        failed = read_ranges(self._descriptor, ranges, out)
        if failed is not None:
            raise self._failure(failed.error_number) from OSError(failed.error_number, "")

    def get(self, slots: SlotNumbers, out: memoryview) -> None:
        """Fill `out` with the blocks of slots that were put, one after another."""
        if len(slots):
            self.read(ranges_of_blocks(self.find(slots), np.arange(len(slots)), self._block_bytes), out)

    def close(self) -> None:
        """Forget everything."""
        if self._descriptor >= 0:
            self._descriptor = -1
            self._finalizer()

    def _open(self) -> int:
        if self.size_bytes <= MEMORY_BYTES:
            return os.memfd_create("deltaimg-spool")
        return open_unnamed(self._folder)

    def _failure(self, error_number: int | None) -> ImageError:
        return ImageError(
            self._folder,
            f"cannot keep {self.size_bytes} bytes of delta sources there: {os.strerror(error_number or errno.EIO)}",
            hint="set TMPDIR to a folder with room",
        )


def find_source_slots(table: SlotTable, records: RecordNumbers) -> SlotNumbers:
    """Return the slots that those of `records` which are deltas are encoded against, ascending."""
    deltas = records[table.are_deltas(records)]
    return SlotNumbers(distinct(expand_ranges(*table.source_slots(deltas))))
