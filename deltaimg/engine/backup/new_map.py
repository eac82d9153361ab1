# SPDX-License-Identifier: Apache-2.0
"""The map of the new snapshot, filled in during the scan, and the statistics that follow from it.

Memory  16 bytes for each run of zero or changed blocks.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import (
    FIRST_SLOT,
    HOLE,
    MAX_RUN_BLOCKS,
    RUN,
    ZERO,
    Runs,
    Slots,
    clip_runs,
    count_run_blocks,
    empty_runs,
    join_runs,
    runs_from_blocks,
    uniform_runs,
)
from deltaimg.engine.scan import ScannedSpan
from deltaimg.format.manifest import Statistics
from deltaimg.image.extents import Bounds, Extents, ExtentStatus
from deltaimg.kernels import ZERO_BLOCK, overlay_runs, subtract_runs
from deltaimg.model import count_blocks


class NewMap:
    """Filled span by span, changed blocks in any order; complete when the scan has ended."""

    def __init__(self, extents: Extents, block_bytes: int) -> None:
        """Args: extents: of whole blocks, as the image source reported them; UNCHANGED only where the base has blocks."""
        self._extents = extents
        self._block_bytes = block_bytes
        self._zero_runs: list[Runs] = []
        self._changed_runs: list[Runs] = []
        self._rewritten_runs = empty_runs()
        self._read_bytes = self._changed_blocks = self._new_blocks = 0
        self._rewritten_blocks = self._rewritten_payload_bytes = 0

    def note_span(self, span: ScannedSpan) -> None:
        """Enter the zero blocks of a span, and count what was read."""
        self._read_bytes += span.read_bytes
        zeros = span.statuses[span.statuses["status"] == ZERO_BLOCK]
        if len(zeros):
            runs = np.empty(len(zeros), RUN)
            runs["first_block"] = zeros["first"].astype(np.uint64) + span.first_block
            runs["count"], runs["slot"] = zeros["count"], ZERO
            self._zero_runs.append(runs)

    def note_changed(self, blocks: npt.NDArray[np.uint64], slots: Slots, new_count: int) -> None:
        """Enter the slots of changed blocks, `new_count` of which are new."""
        self._changed_runs.append(runs_from_blocks(blocks, slots))
        self._changed_blocks += len(blocks)
        self._new_blocks += new_count

    def note_rewritten(self, runs: Runs, new_count: int, payload_bytes: int) -> None:
        """Enter the slots of unchanged blocks that were stored again, at the end of the scan.

        Args:
            runs: ascending. new_count: different blocks among them. payload_bytes: what these take in packs.
        """
        self._rewritten_runs = runs
        self._rewritten_blocks, self._rewritten_payload_bytes = new_count, payload_bytes

    @property
    def changed_runs(self) -> Runs:
        """Where the changed blocks so far are stored."""
        return _sort_runs(join_runs(self._changed_runs))

    def stored_runs(self, base_runs: Runs, first_new_slot: int) -> Runs:
        """Return the runs of the map so far that refer to what was stored before this backup."""
        runs = join_runs([base_runs, self.changed_runs])
        return runs[runs["slot"] < first_new_slot]

    def overlay(self, base_runs: Runs, size_bytes: int) -> Runs:
        """Return the whole map: the base's, with zeros, holes, free, changed and rewritten blocks laid over it."""
        block_count = count_blocks(size_bytes, self._block_bytes)
        runs = clip_runs(base_runs, 0, block_count)
        for layer in (
            _sort_runs(join_runs(self._zero_runs)),
            self._unread_runs(size_bytes),
            self.changed_runs,
            self._rewritten_runs,
        ):
            runs = overlay_runs(runs, layer)
        return runs

    def summarise(self, runs: Runs, base_runs: Runs, size_bytes: int, duration_s: float) -> Statistics:
        """Return the statistics of the backup, without what it stored."""
        new_zeros = subtract_runs(runs[runs["slot"] < FIRST_SLOT], base_runs)
        cleared_blocks = _count_data(base_runs) - _count_data(overlay_runs(base_runs, new_zeros))
        allocated = self._extents.clip(size_bytes).count_bytes(ExtentStatus.DATA, ExtentStatus.UNCHANGED)
        block = self._block_bytes
        return Statistics(
            apparent_bytes=size_bytes,
            allocated_bytes=allocated,
            read_bytes=self._read_bytes,
            changed_bytes=(self._changed_blocks + cleared_blocks) * block,
            referenced_bytes=(self._changed_blocks - self._new_blocks) * block,
            new_bytes=self._new_blocks * block,
            rewritten_bytes=self._rewritten_blocks * block,
            rewritten_payload_bytes=self._rewritten_payload_bytes,
            stored_bytes=0,
            duration_s=round(duration_s, 3),
        )

    def _unread_runs(self, size_bytes: int) -> Runs:
        """Return the blocks that are in the map without having been read: holes, zeros, and holes for what is free."""
        extents = self._extents.clip(size_bytes)
        holes = extents.find(ExtentStatus.HOLE, ExtentStatus.FREE)
        zeros = extents.find(ExtentStatus.ZERO)
        return _sort_runs(
            join_runs([_uniform_runs(holes, HOLE, self._block_bytes), _uniform_runs(zeros, ZERO, self._block_bytes)])
        )


def _sort_runs(runs: Runs) -> Runs:
    return runs[np.argsort(runs["first_block"], kind="stable")]


def _uniform_runs(bounds: Bounds, slot: int, block_bytes: int) -> Runs:
    """Return runs that give all blocks inside `bounds` the same hole or zero slot."""
    blocks = -(-bounds // block_bytes)
    counts = blocks[:, 1] - blocks[:, 0]
    if len(counts) and counts.max() > MAX_RUN_BLOCKS:
        return join_runs([uniform_runs(first, end - first, slot) for first, end in blocks.tolist()])
    runs = np.empty(len(blocks), RUN)
    runs["first_block"], runs["count"], runs["slot"] = blocks[:, 0], counts, slot
    return runs


def _count_data(runs: Runs) -> int:
    return count_run_blocks(runs[runs["slot"] >= FIRST_SLOT])
