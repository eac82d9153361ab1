# SPDX-License-Identifier: Apache-2.0
"""Options of `flatten`."""

from __future__ import annotations

from dataclasses import dataclass

from deltaimg.model import MAX_DELTA_DEPTH
from deltaimg.options.definition import option
from deltaimg.options.values import count


@dataclass(frozen=True, slots=True)
class FlattenOptions:
    """How far deltas are replaced by literals."""

    max_depth: int | None = option(
        None,
        count(0, MAX_DELTA_DEPTH),
        f"Maximum delta chain depth afterwards, 0 to {MAX_DELTA_DEPTH}.",
        default_text="0, no deltas at all",
    )
