# SPDX-License-Identifier: Apache-2.0
"""How long a run waits for locks of others, and how that is shown."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from msgspec import Struct

RENEW_S = 20.0
"""How often a holder renews its heartbeat."""
PATIENCE_S = 90.0
"""How long a heartbeat must be seen standing still: four of them and some, as a store may be slow and a host busy."""
POLL_S = 2.0


class LockWaiting(Struct, frozen=True):
    """Set on a `Repository` for all locks that are taken through it."""

    wait_s: float = 0.0
    """For a lock whose holder is at work; 0: not at all."""
    patience_s: float = PATIENCE_S
    """For a sign of life of a holder that may be dead; 0: it counts as alive."""
    show: Callable[[str], AbstractContextManager[None]] = lambda _: nullcontext()
    """Called with what is waited for, once for each; entered for as long as that takes, in the thread that waits."""
    sleep: Callable[[float], None] = time.sleep
