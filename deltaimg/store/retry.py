# SPDX-License-Identifier: Apache-2.0
"""Calls that are made again where the error says that the next one may succeed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from deltaimg.errors import DeltaimgError

Result = TypeVar("Result")


def retry(call: Callable[[], Result], tries: int = 2) -> Result:
    """Return what `call` returns, made up to `tries` times while its error is `retryable`; raises the error of the last try.

    For reads, and for what may safely be done twice. There is no pause: what needs one belongs into the store.
    """
    for _ in range(tries - 1):
        try:
            return call()
        except DeltaimgError as error:
            if not error.retryable:
                raise
    return call()
