# SPDX-License-Identifier: Apache-2.0
"""Blocks that delta records will need, kept from when their own record was expanded until then.

Memory  the number of each block kept; the blocks themselves up to `MEMORY_BYTES`, else in a file that has no name.
"""

from __future__ import annotations

import mmap
import os
import tempfile

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import Slots
from deltaimg.engine.places import read_blocks
from deltaimg.errors import ImageError
from deltaimg.kernels import gather_blocks
from deltaimg.model import MIB

MEMORY_BYTES = 64 * MIB


class Spool:
    """Keeps the content of a fixed set of slots; any thread may put, and get what was put before. Close it in the end."""

    def __init__(self, slots: npt.NDArray[np.int64], block_bytes: int, folder: str | None = None) -> None:
        """Args: slots: ascending, each once. folder: for the file; the system's own for temporary files if None."""
        self.slots, self._block_bytes = slots, block_bytes
        self.size_bytes = len(slots) * block_bytes
        self._memory: mmap.mmap | None = None
        self._descriptor = -1
        if 0 < self.size_bytes <= MEMORY_BYTES:
            self._memory = mmap.mmap(-1, self.size_bytes)
        elif self.size_bytes:
            self._folder = folder or tempfile.gettempdir()
            try:
                self._descriptor, path = tempfile.mkstemp(prefix=".deltaimg-", dir=self._folder)
                os.unlink(path)
            except OSError as error:
                raise self._failure(error) from error

    def put(self, first_slot: int, content: memoryview) -> None:
        """Keep those blocks of a record's content that are wanted; `first_slot` is that of its first block."""
        count = len(content) // self._block_bytes
        first, last = np.searchsorted(self.slots, (first_slot, first_slot + count)).tolist()
        if first == last:
            return
        indexes: Slots = (self.slots[first:last] - first_slot).astype(np.uint32)
        kept = gather_blocks(content, self._block_bytes, indexes).data
        offset = first * self._block_bytes
        if self._memory is not None:
            self._memory[offset : offset + len(kept)] = kept
            return
        try:
            done = 0
            while done < len(kept):
                done += os.pwrite(self._descriptor, kept[done:], offset + done)
        except OSError as error:
            raise self._failure(error) from error

    def get(self, slots: npt.NDArray[np.int64], out: memoryview) -> None:
        """Fill `out` with the blocks of slots that were put."""
        read_blocks(np.searchsorted(self.slots, slots), self._block_bytes, out, self._read)

    def close(self) -> None:
        """Forget everything."""
        if self._memory is not None:
            self._memory.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _read(self, offset: int, out: memoryview) -> None:
        if self._memory is not None:
            out[:] = self._memory[offset : offset + len(out)]
            return
        try:
            got = os.preadv(self._descriptor, [out], offset)
        except OSError as error:
            raise self._failure(error) from error
        assert got == len(out)

    def _failure(self, error: OSError) -> ImageError:
        return ImageError(
            self._folder,
            f"cannot keep {self.size_bytes} bytes of delta sources there: {os.strerror(error.errno or 0)}",
            hint="set TMPDIR to a folder with room",
        )
