# SPDX-License-Identifier: Apache-2.0
"""What of a file system is free, whichever it is."""

from __future__ import annotations

from msgspec import Struct

from deltaimg.image.extents import Bounds


class FreeBlocks(Struct, frozen=True, eq=False):
    """What of a file system is free."""

    bounds: Bounds
    """In bytes from its start."""
    kept_groups: int
    """Parts of it whose allocation structures are not right, and which are therefore kept as a whole."""
