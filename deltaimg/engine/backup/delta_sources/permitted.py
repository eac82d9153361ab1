# SPDX-License-Identifier: Apache-2.0
"""Which stored records may become delta sources without a restore having to decode too much, now and after later backups.

A record that is a delta source is decoded as long as the delta is used, with all that it depends on, however little the image
uses of these. Up to three quarters of what restore read amplification may be above 1, any record may be one: to refuse some
makes backups larger, and read amplification no less. Beyond, a source must be the less deep the closer the bound is, and the
image must use the more of it: at the bound sources are literals of which the image uses most, so that no delta keeps a chain
of others, nor what the image has mostly left.

Memory  1 byte for each stored record.
"""

from __future__ import annotations

import numpy as np

from deltaimg.arrays import Flags
from deltaimg.engine.content.restore_needs import RestoreNeeds
from deltaimg.engine.content.rewrite_choice import LEAST_USE
from deltaimg.ids import RecordNumbers
from deltaimg.repo.slots import SlotTable

_RENEWED_EVERY = 32
"""New records until it is looked up again which ones are permitted, at most."""
_FREE_SHARE = 0.75
"""Of what read amplification may be above 1: up to there nothing is refused."""


class PermittedSources:
    """Answers for the next new record; one thread's work."""

    def __init__(self, table: SlotTable, needs: RestoreNeeds, max_read_amplification: float, max_depth: int) -> None:
        """Begin with the needs of the base."""
        self._needs, self._bound, self._max_depth = needs, max_read_amplification, max_depth
        self._depths = table.depths_of(RecordNumbers(np.arange(needs.stored_count)))
        self._lifetime = min(_RENEWED_EVERY, needs.stored_count // 64)
        self._age = self._lifetime
        self._found: Flags | None = None
        self._is_settled = False

    def settle(self) -> None:
        """From now on permit only what a restore decodes anyway: the needs are those of the whole map."""
        self._is_settled, self._age = True, self._lifetime

    def has_room(self, sources: RecordNumbers) -> bool:
        """Return whether a restore may decode `sources`, new records among them, and what they depend on, for a new record."""
        added = self._needs.count_added(sources)
        return not added or self._needs.decoded_blocks + added <= self._bound * self._needs.data_blocks

    def find_at_bound(self) -> Flags:
        """Return which stored records a new record may be encoded against where there is no room for others."""
        return self._find_used(1.0)

    def find(self) -> Flags | None:
        """Return which stored records the next new record may be encoded against; None for all of them."""
        self._age += 1
        if self._age > self._lifetime:
            self._found, self._age = self._find(), 0
        return self._found

    def _find(self) -> Flags | None:
        needs = self._needs
        if self._is_settled:
            return self._find_used(1.0) & needs.is_needed
        beyond = ((needs.ratio - 1) / max(self._bound - 1, 0.01) - _FREE_SHARE) / (1 - _FREE_SHARE)
        return self._find_used(min(1.0, beyond)) if beyond > 0 else None

    def _find_used(self, closeness: float) -> Flags:
        """Return which records the image uses enough of; `closeness` is 0 where refusing begins and 1 at the bound."""
        share = LEAST_USE * max(0.0, 2 * closeness - 1)
        is_used: Flags = self._needs.direct >= np.floor(share * self._needs.record_blocks)
        return is_used & (self._depths <= (1 - closeness) * self._max_depth)
