# SPDX-License-Identifier: Apache-2.0
"""The store of a location with all that is put around it: the one place that says in which order.

From the outside in: calls are counted, then held to limits, then made.
"""

from __future__ import annotations

from deltaimg.options.store import StoreOptions
from deltaimg.store.counted import CountedStore, TrafficCounter
from deltaimg.store.interface import Store
from deltaimg.store.open import Writer, open_store
from deltaimg.store.throttle import Throttle, ThrottledStore


def compose_store(location: str, options: StoreOptions | None, *, writer: Writer) -> Store:
    """Return the store at `location`, used as `options` say; as `open_store` otherwise."""
    store = open_store(location, writer=writer)
    if options is not None and (options.bandwidth is not None or options.max_requests is not None):
        store = ThrottledStore(store, Throttle(options))
    return CountedStore(store, TrafficCounter())
