# SPDX-License-Identifier: Apache-2.0
"""Calls that are made again where the error says that the next one may succeed.

Always  an error that was retried as long as it is worth says so (`was_retried`), and nothing above retries it once more.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeVar

from msgspec import Struct

from deltaimg.errors import DeltaimgError, StoreError
from deltaimg.threads import pause

Result = TypeVar("Result")
_LONGEST_ASKED_S = 120.0
"""What a store that asks for a pause gets at most."""


class Backoff(Struct, frozen=True):
    """How often a call is made, and how long the pauses are: exponential, with jitter, so that hosts do not come together."""

    tries: int = 10
    first_s: float = 0.25
    """The longest first pause; each further one may be twice as long."""
    longest_s: float = 30.0
    sleep: Callable[[float], bool] = pause
    """Waits; returns whether the process is to end: then nothing is tried again."""
    draw: Callable[[], float] = random.random

    def pause_s(self, failures: int, asked_s: float | None) -> float:
        """Return how long to wait after so many failures.

        Args:
            asked_s: what the store asked for (`Retry-After`), if it did.
        """
        longest_s = min(self.longest_s, self.first_s * 2.0 ** (failures - 1))
        pause_s = longest_s * (0.5 + 0.5 * self.draw())
        return pause_s if asked_s is None else max(pause_s, min(asked_s, _LONGEST_ASKED_S))


AT_ONCE = Backoff(tries=2, first_s=0.0)
"""For a store that does not get better by waiting."""


def is_worth_retrying(error: DeltaimgError) -> bool:
    """Return whether a call that failed so may succeed when it is made again now: a lost lock stays lost."""
    return isinstance(error, StoreError) and error.retryable and not error.was_retried


def retry(
    call: Callable[[], Result], backoff: Backoff = AT_ONCE, note: Callable[[DeltaimgError, float], None] | None = None
) -> Result:
    """Return what `call` returns, made again while its error is worth it; raises the error of the last try.

    For reads, and for what may safely be done twice.

    Args:
        note: called with the error and the length of the pause before each further try.
    """
    failures = 0
    while True:
        try:
            return call()
        except DeltaimgError as error:
            failures += 1
            if not is_worth_retrying(error):
                raise
            if failures >= backoff.tries:
                error.was_retried = True
                raise
            pause_s = backoff.pause_s(failures, error.retry_after_s)
            if note is not None:
                note(error, pause_s)
            if pause_s and backoff.sleep(pause_s):
                raise
