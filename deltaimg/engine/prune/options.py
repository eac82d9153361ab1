# SPDX-License-Identifier: Apache-2.0
"""How far a prune goes for space."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

MAX_UNUSED_PERCENT = 2.0


class Trim(Enum):
    """Whether records of which only part is needed are stored again without the rest."""

    AUTO = "auto"
    """Where that frees enough for what it costs."""
    NONE = "none"
    FULL = "full"
    """Wherever it frees anything."""


@dataclass(frozen=True, slots=True)
class PruneOptions:
    """The options of one run."""

    max_unused: float = MAX_UNUSED_PERCENT / 100
    """Packs are left alone while at most this share of what all packs hold is unused."""
    max_repack_bytes: int | None = None
    """So much is written at most."""
    trim: Trim = Trim.AUTO
