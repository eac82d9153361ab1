# SPDX-License-Identifier: Apache-2.0
"""Which extents differ between two snapshots, from their maps and digests; no content is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import FIRST_SLOT, HOLE, Runs, clip_runs, end_blocks, uniform_runs
from deltaimg.engine.content.resolved import load_resolved
from deltaimg.errors import UsageError
from deltaimg.format.manifest import Manifest
from deltaimg.kernels import expand_runs, overlay_runs, subtract_runs
from deltaimg.model import Extent, count_blocks
from deltaimg.repo.index import load_index
from deltaimg.repo.lock import ReaderLock
from deltaimg.repo.repository import Repository
from deltaimg.repo.slots import SlotTable

_PIECE_BLOCKS = 1 << 20


@dataclass(frozen=True, slots=True)
class Difference:
    """Extents whose content differs, ascending and apart, and how many bytes they have."""

    older: Manifest
    newer: Manifest
    extents: tuple[Extent, ...]
    differing_bytes: int
    data: npt.NDArray[np.int64] = field(compare=False, repr=False)
    """Extents [start, end) in bytes that are data in the newer snapshot, ascending; shape (count, 2)."""


def diff_snapshots(repository: Repository, older: Manifest, newer: Manifest) -> Difference:
    """Compare two snapshots, of one image or of two; where one is shorter, the rest of the other differs unless it is zero.

    Raises:
        UsageError: their blocks have different sizes.
    """
    if older.block_bytes != newer.block_bytes:
        raise UsageError(
            f"{older.label} has blocks of {older.block_bytes} bytes and {newer.label} of {newer.block_bytes}"
        )
    block = older.block_bytes
    block_count = count_blocks(max(older.size_bytes, newer.size_bytes), block)
    with ReaderLock(repository, f"diff of {older.label} and {newer.label}", datetime.now(UTC)):
        table = SlotTable(repository, load_index(repository))
        runs = [_extend(load_resolved(repository, each, table).map.runs, block_count) for each in (older, newer)]
    blocks = _differing_blocks(runs[0], runs[1], table.digests)
    size = max(older.size_bytes, newer.size_bytes)
    extents = tuple(Extent(start * block, min(end * block, size)) for start, end in blocks)
    data = runs[1][runs[1]["slot"] >= FIRST_SLOT]
    ends = np.minimum(end_blocks(data).astype(np.int64) * block, newer.size_bytes)
    data_extents = np.stack((data["first_block"].astype(np.int64) * block, ends), axis=1)
    return Difference(older, newer, extents, sum(extent.length for extent in extents), data_extents)


def _extend(runs: Runs, block_count: int) -> Runs:
    """Cover `block_count` blocks, with a hole behind a shorter image."""
    return overlay_runs(uniform_runs(0, block_count, HOLE), clip_runs(runs, 0, block_count))


def _differing_blocks(older: Runs, newer: Runs, digests: npt.NDArray[np.uint8]) -> list[tuple[int, int]]:
    """Return [start, end) in blocks of what differs: equal slots are equal, of others the digests decide."""
    found: list[tuple[int, int]] = []
    suspects = subtract_runs(newer, older)
    for first, end in zip(suspects["first_block"].tolist(), end_blocks(suspects).tolist(), strict=True):
        for start in range(first, end, _PIECE_BLOCKS):
            count = min(_PIECE_BLOCKS, end - start)
            slots = [expand_runs(runs, start, count) for runs in (older, newer)]
            if max(int(each.max()) for each in slots) < FIRST_SLOT:
                continue
            differs = np.flatnonzero((digests[slots[0]] != digests[slots[1]]).any(axis=1)) + start
            if not len(differs):
                continue
            breaks = np.flatnonzero(np.diff(differs) != 1)
            starts = differs[np.concatenate((np.zeros(1, np.int64), breaks + 1))].tolist()
            ends = (differs[np.concatenate((breaks, np.full(1, len(differs) - 1)))] + 1).tolist()
            for begin, stop in zip(starts, ends, strict=True):
                if found and found[-1][1] == begin:
                    found[-1] = (found[-1][0], stop)
                else:
                    found.append((begin, stop))
    return found
