# SPDX-License-Identifier: Apache-2.0
"""No more bytes and requests a second than are allowed, over all threads of a process.

A store that moves bytes piece by piece (`KeepsPace`) waits between its pieces, of a twentieth of a second at most, so that no
second has noticeably more than its share. Of another store, whole calls are paid for: before they send, and after they
received. There the average is right, and one object may come at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

from deltaimg.meter import Meter
from deltaimg.options.bandwidth import Bandwidth
from deltaimg.options.store import StoreOptions
from deltaimg.store.interface import KeepsPace, Store
from deltaimg.store.observed import Call, ObservedStore
from deltaimg.store.wrapped import find_innermost

_PIECE_S = 0.05
_LEAST_PIECE_BYTES, _MOST_PIECE_BYTES = 4 << 10, 1 << 20


class Throttle:
    """The limits of a run: a `Pace` that any number of stores may share."""

    def __init__(self, options: StoreOptions, now: Callable[[], datetime] = datetime.now) -> None:
        """Args: now: local time, by which a timetable goes."""
        self._bandwidth: Bandwidth | None = options.bandwidth
        self._now = now
        self._sent = Meter(self._find_sent)
        self._received = Meter(self._find_received)
        self._requests = Meter(lambda: options.max_requests)

    @property
    def limits_bytes(self) -> bool:
        """Whether bytes are ever limited, and not requests alone."""
        return self._bandwidth is not None

    @property
    def piece_bytes(self) -> int:
        rates = [each for each in (self._find_sent(), self._find_received()) if each is not None]
        return max(
            _LEAST_PIECE_BYTES, min(_MOST_PIECE_BYTES, *(int(each * _PIECE_S) for each in rates), _MOST_PIECE_BYTES)
        )

    def delay_sent(self, count: int) -> float:
        return self._sent.take(count)

    def delay_received(self, count: int) -> float:
        return self._received.take(count)

    def delay_request(self) -> float:
        return self._requests.take(1)

    def _find_sent(self) -> float | None:
        return None if self._bandwidth is None else self._bandwidth.rates_at(self._now()).sent

    def _find_received(self) -> float | None:
        return None if self._bandwidth is None else self._bandwidth.rates_at(self._now()).received


class ThrottledStore(ObservedStore):
    """Makes calls no faster than a throttle allows."""

    def __init__(self, inner: Store, throttle: Throttle, sleep: Callable[[float], None] = time.sleep) -> None:
        super().__init__(inner)
        self._throttle, self._sleep = throttle, sleep
        innermost = find_innermost(inner)
        self._paces_itself = isinstance(innermost, KeepsPace) and throttle.limits_bytes
        if isinstance(innermost, KeepsPace) and throttle.limits_bytes:
            innermost.keep_pace(throttle)

    def begin(self, call: Call) -> None:
        """Wait until a request may be made, and sent."""
        self._wait(self._throttle.delay_request())
        if call.sent_bytes and not self._paces_itself:
            self._wait(self._throttle.delay_sent(call.sent_bytes))

    def end(self, call: Call) -> None:
        """Wait as long as what was received should have taken."""
        if call.received_bytes and not self._paces_itself:
            self._wait(self._throttle.delay_received(call.received_bytes))

    def _wait(self, delay_s: float) -> None:
        if delay_s > 0:
            self._sleep(delay_s)
