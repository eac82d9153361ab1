# SPDX-License-Identifier: Apache-2.0
"""So many of something a second, and no more, over all threads of a process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_BURST_S = 0.05
"""So much of a rate that was not used may be used later."""


class Meter:
    """One rate, shared by threads. What is asked for is granted in order, at a time when the rate allows it."""

    def __init__(self, rate: Callable[[], float | None], clock: Callable[[], float] = time.monotonic) -> None:
        """Args: rate: how many a second, now; None is no limit. clock: seconds."""
        self._rate, self._clock = rate, clock
        self._lock = threading.Lock()
        self._free_at = float("-inf")

    def take(self, count: float) -> float:
        """Use `count` of the rate; return how many seconds to wait before."""
        rate = self._rate()
        with self._lock:
            now = self._clock()
            if rate is None:
                self._free_at = now
                return 0.0
            begin = max(self._free_at, now - _BURST_S)
            self._free_at = begin + count / rate
            return max(0.0, begin - now)
