# SPDX-License-Identifier: Apache-2.0
"""A clock that only tests move."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

START = datetime(2026, 11, 23, 2, 30, tzinfo=UTC)


class FixedClock:
    """Stands still until it is told to go on, or back."""

    def __init__(self, now: datetime = START) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **parts: float) -> None:
        self.now += timedelta(**parts)
