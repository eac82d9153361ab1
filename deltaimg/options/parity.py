# SPDX-License-Identifier: Apache-2.0
"""Options of `parity add`."""

from __future__ import annotations

from dataclasses import dataclass

from deltaimg.options.definition import option
from deltaimg.options.values import percent

MIN_PERCENT, MAX_PERCENT = 0.5, 100.0
DEFAULT_PERCENT = 5.0


@dataclass(frozen=True, slots=True)
class ParityOptions:
    """How much parity is added."""

    percent: float | None = option(
        None,
        percent(MIN_PERCENT, MAX_PERCENT),
        f"Parity to add, of the size of what it protects: {MIN_PERCENT:g} to {MAX_PERCENT:g}.",
        default_text=f"{DEFAULT_PERCENT:g}",
    )
