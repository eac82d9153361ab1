# SPDX-License-Identifier: Apache-2.0
"""Which blocks newer map layers cover, so that older layers do not count for them."""

from __future__ import annotations

from msgspec import Struct

from deltaimg.arrays import HOLE, Runs, clip_runs, empty_runs, uniform_runs
from deltaimg.format.limits import MAX_BLOCKS
from deltaimg.format.map import MapObject
from deltaimg.kernels import overlay_runs, subtract_runs


class Cover(Struct, frozen=True):
    """Covered are `blocks`, whose slots are all holes, and every block from `end` on: a newer image is no longer than that.

    Memory  16 bytes a run; blocks that follow each other are one run, whatever they hold.
    """

    blocks: Runs
    end: int

    @classmethod
    def nothing(cls) -> Cover:
        """Return the cover over the newest layer."""
        return cls(empty_runs(), MAX_BLOCKS)

    def uncovered(self, layer: MapObject) -> Runs:
        """Return the parts of a layer's runs that are not covered, in the numbering of the layer."""
        runs = layer.runs if layer.block_count <= self.end else clip_runs(layer.runs, 0, self.end)
        return subtract_runs(overlay_runs(runs, self.blocks), self.blocks) if len(self.blocks) else runs

    def add(self, layer: MapObject) -> Cover:
        """Return what is covered below a layer."""
        own = layer.runs.copy()
        own["slot"] = HOLE
        end = min(self.end, layer.block_count)
        return Cover(clip_runs(overlay_runs(self.blocks, own), 0, end), end)

    def intersect(self, other: Cover) -> Cover:
        """Return the cover of both together."""
        end = max(self.end, other.end)
        mine, others = self._reach_to(end), other._reach_to(end)
        return Cover(subtract_runs(mine, subtract_runs(mine, others)), end)

    def _reach_to(self, end: int) -> Runs:
        """Return `blocks`, and those from the own end to a later one."""
        return overlay_runs(self.blocks, uniform_runs(self.end, end - self.end, HOLE))
