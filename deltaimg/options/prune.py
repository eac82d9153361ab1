# SPDX-License-Identifier: Apache-2.0
"""Options of `prune`."""

from __future__ import annotations

from dataclasses import dataclass

from deltaimg.options.definition import option
from deltaimg.options.values import SIZE, choice, percent, ratio

TRIM_MODES = ("auto", "none", "full")


@dataclass(frozen=True, slots=True)
class PruneOptions:
    """How much work a prune does to free space."""

    max_unused_percent: float = option(
        2.0, percent(0, 100), "Do not repack as long as at most this share of all packs is unused.", "--max-unused"
    )
    max_repack_bytes: int | None = option(
        None,
        SIZE,
        "Write at most this much in this run; 0 deletes whole packs only.",
        "--max-repack",
        default_text="no bound",
    )
    max_read_amplification: float = option(
        1.5,
        ratio(1),
        "Maximum restore read amplification of the newest snapshot of each image: bytes that a restore decodes for each byte "
        "of data. Beyond it, what such a restore needs is stored again apart from what only others need.",
    )
    trim: str = option(
        "auto",
        choice(TRIM_MODES, "HOW"),
        "Store records again without what is not needed: auto where that frees enough for what it costs, full wherever it "
        "frees anything, or none.",
    )
