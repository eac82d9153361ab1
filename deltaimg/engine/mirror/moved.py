# SPDX-License-Identifier: Apache-2.0
"""Blocks that the copy has elsewhere, found by the beginnings of their digests.

Memory  16 bytes a block of the copy that is not zero.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import Digests
from deltaimg.engine.mirror.batches import PREFIX_BYTES
from deltaimg.engine.mirror.table import find_data
from deltaimg.engine.mirror.working_copy import WorkingCopy
from deltaimg.format.mirror import BLOCK_BYTES
from deltaimg.kernels import digest_blocks


class BlockFinder:
    """Looks for blocks in what a copy held when the run began, wherever that is now: in the copy, or in its journal."""

    def __init__(self, copy: WorkingCopy, digests: Digests, key: bytes) -> None:
        self._copy, self._key = copy, key
        blocks = find_data(digests)
        prefixes = _as_numbers(digests[blocks, :PREFIX_BYTES])
        order = np.argsort(prefixes, kind="stable")
        self._prefixes, self._blocks = prefixes[order], blocks[order]

    def find(self, prefixes: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.bool_], memoryview]:
        """Return which blocks are there, and their content, one after another.

        Args:
            prefixes: of the digests of wanted blocks, shape (count, PREFIX_BYTES).
        """
        is_there = np.zeros(len(prefixes), np.bool_)
        if not len(self._blocks):
            return is_there, memoryview(b"")
        wanted = _as_numbers(prefixes)
        places = np.minimum(np.searchsorted(self._prefixes, wanted), len(self._blocks) - 1)
        candidates = np.flatnonzero(self._prefixes[places] == wanted)
        blocks = self._blocks[places[candidates]]
        content = np.frombuffer(self._copy.read(blocks), np.uint8).reshape(-1, BLOCK_BYTES)
        is_right = self._has(content, wanted[candidates])
        wrong = np.flatnonzero(~is_right)
        if len(wrong):
            is_known, before = self._copy.read_before(blocks[wrong])
            content[wrong[is_known]] = np.frombuffer(before, np.uint8).reshape(-1, BLOCK_BYTES)[is_known]
            is_right = self._has(content, wanted[candidates])
        is_there[candidates[is_right]] = True
        return is_there, memoryview(content[is_right].tobytes())

    def _has(self, content: npt.NDArray[np.uint8], wanted: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        """Return which blocks have the digests that are wanted."""
        digests = digest_blocks(self._key, content.data.cast("B") if len(content) else b"", BLOCK_BYTES)
        has: npt.NDArray[np.bool_] = _as_numbers(digests[:, :PREFIX_BYTES]) == wanted
        return has


def _as_numbers(prefixes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    padded = np.zeros((len(prefixes), 8), np.uint8)
    padded[:, :PREFIX_BYTES] = prefixes
    return padded.view("<u8").reshape(-1).astype(np.uint64)
