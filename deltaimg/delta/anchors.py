# SPDX-License-Identifier: Apache-2.0
"""Anchors of stored content: a table from the name of an anchor to a label of the block that has it.

A label is a number that the table's owner gives to a block, 1 and up; it outlives the run, slots do not.

Memory  the table, of a fixed size: the share of positions that are anchors follows from it and from how much content there is.
"""

from __future__ import annotations

from deltaimg.arrays import Slots
from deltaimg.kernels import collect_anchors, find_anchors, insert_anchors
from deltaimg.kernels.layout import BUCKET_PLACES, AnchorNames, AnchorTable, Buffer

_DENSEST_SHIFT, _SPARSEST_SHIFT = 25, 16
"""One anchor in 128 bytes, one in 64 KiB."""
_MEASURED_SHARE = 0.75
"""The share of the anchors expected by the rate that is found: repetitive content has fewer."""
_FULL = 0.7
"""Buckets begin to overflow noticeably when the table is fuller."""


def plan_table(content_bytes: int, budget_bytes: int) -> tuple[int, int]:
    """Return the number of buckets of a table for this much content, and the shift that sets how dense its anchors are."""
    most = max(1, budget_bytes // 64)
    for shift in range(_DENSEST_SHIFT, _SPARSEST_SHIFT - 1, -1):
        anchors = int(content_bytes * _MEASURED_SHARE) >> (32 - shift)
        buckets = 1 + int(anchors / (BUCKET_PLACES * _FULL))
        if buckets <= most:
            return buckets, shift
    return most, _SPARSEST_SHIFT


class Anchors:
    """A table and how dense its anchors are."""

    def __init__(self, table: AnchorTable, shift: int) -> None:
        self.table, self.shift = table, shift

    def collect(self, content: Buffer) -> tuple[AnchorNames, Slots]:
        """Return names and positions of the anchors of `content`."""
        return collect_anchors(content, self.shift)

    def find(self, names: AnchorNames) -> Slots:
        """Return the label remembered for each name, 0 for none."""
        return find_anchors(self.table, names)

    def remember(self, names: AnchorNames, labels: Slots) -> None:
        """Enter a label for each name; those with label 0 are passed over."""
        insert_anchors(self.table, names, labels)
