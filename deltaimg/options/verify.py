# SPDX-License-Identifier: Apache-2.0
"""Options of `verify`."""

from __future__ import annotations

from dataclasses import dataclass

from deltaimg.options.definition import option
from deltaimg.options.values import percent


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """How much a verify reads."""

    percent: float = option(
        100.0,
        percent(0, 100, is_least_valid=False),
        "Read only this share of the content: what was verified longest ago.",
    )
