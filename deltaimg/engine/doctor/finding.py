# SPDX-License-Identifier: Apache-2.0
"""One thing that was looked at."""

from __future__ import annotations

from msgspec import Struct


class Finding(Struct, frozen=True):
    """What was looked at, whether it is as it should be, and what it is."""

    name: str
    is_good: bool
    """Whether it is as good as it gets."""
    detail: str
    """What was found, in words."""
    hint: str = ""
    """What to do for more."""
