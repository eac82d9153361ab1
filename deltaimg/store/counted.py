# SPDX-License-Identifier: Apache-2.0
"""How many calls a run makes to a store, and how many bytes travel."""

from __future__ import annotations

import threading
from collections import Counter

from msgspec import Struct

from deltaimg.store.interface import Store
from deltaimg.store.observed import Call, ObservedStore
from deltaimg.store.wrapped import WrappedStore


class Traffic(Struct, frozen=True):
    """What went to a store and came from it so far."""

    requests: dict[str, int]
    """By kind of call, such as `put`; those that failed are counted as well."""
    sent_bytes: int
    received_bytes: int
    """Content of objects; names, listings and what protocols add are not counted."""


class TrafficCounter:
    """Counts for any number of threads and stores."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[str] = Counter()
        self._sent_bytes = self._received_bytes = 0

    def count_request(self, kind: str) -> None:
        """Count a call of this kind."""
        with self._lock:
            self._requests[kind] += 1

    def count_bytes(self, sent_bytes: int, received_bytes: int) -> None:
        """Count what a call has moved."""
        with self._lock:
            self._sent_bytes += sent_bytes
            self._received_bytes += received_bytes

    @property
    def traffic(self) -> Traffic:
        """What was counted so far."""
        with self._lock:
            return Traffic(dict(sorted(self._requests.items())), self._sent_bytes, self._received_bytes)


class CountedStore(ObservedStore):
    """Counts the calls that it passes on."""

    def __init__(self, inner: Store, counter: TrafficCounter) -> None:
        super().__init__(inner)
        self._counter = counter

    @property
    def traffic(self) -> Traffic:
        """What was counted so far."""
        return self._counter.traffic

    def begin(self, call: Call) -> None:
        """Count a call, whether it fails or not."""
        self._counter.count_request(call.kind)

    def end(self, call: Call) -> None:
        """Count what has travelled."""
        self._counter.count_bytes(call.sent_bytes, call.received_bytes)


def find_traffic(store: Store) -> Traffic | None:
    """Return what was counted of a store and of what is around it; None where nothing counts."""
    while isinstance(store, WrappedStore):
        if isinstance(store, CountedStore):
            return store.traffic
        store = store.inner
    return None
