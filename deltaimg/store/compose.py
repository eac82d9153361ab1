# SPDX-License-Identifier: Apache-2.0
"""The store of a location with all that is put around it: the one place that says in which order.

From the outside in: objects are read ahead, metadata and packs from the cache of this host; what it lacks is counted, held to
limits, and read.
"""

from __future__ import annotations

from deltaimg.options.store import StoreOptions
from deltaimg.store.cached import CachedStore
from deltaimg.store.cached_packs import CachedPacksStore
from deltaimg.store.counted import CountedStore, TrafficCounter
from deltaimg.store.interface import Store
from deltaimg.store.metadata_cache import MetadataCache
from deltaimg.store.open import Writer, open_store
from deltaimg.store.pack_cache import PackCache
from deltaimg.store.read_ahead import ReadAheadStore
from deltaimg.store.throttle import Throttle, ThrottledStore


def compose_store(
    location: str, options: StoreOptions | None, *, writer: Writer, cache_folder: str | None = None
) -> Store:
    """Return the store at `location`, used as `options` say; as `open_store` otherwise.

    Args:
        cache_folder: where this host keeps metadata and packs of remote stores; None keeps nothing.
    """
    options = StoreOptions() if options is None else options
    store = open_store(location, writer=writer)
    is_remote = store.properties.is_remote
    if options.bandwidth is not None or options.max_requests is not None:
        store = ThrottledStore(store, Throttle(options))
    store = CountedStore(store, TrafficCounter())
    if is_remote and cache_folder is not None:
        store = CachedStore(store, MetadataCache(cache_folder))
        if options.pack_cache_bytes != 0:
            store = CachedPacksStore(store, PackCache(cache_folder, options.pack_cache_bytes))
    return ReadAheadStore(store) if store.properties.parallel_requests > 1 else store
