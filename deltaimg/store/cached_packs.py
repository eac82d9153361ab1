# SPDX-License-Identifier: Apache-2.0
"""A store whose packs are read from this host where it has them already: what it wrote or read, as it was written or read.

Packs never change, and no name comes back with other bytes. What is there is asked of the store alone: ranges of packs are read
because the index names them, and whether an object exists is never concluded from the cache. A command that looks for damage in
the store uses no cache.

Always  the cache gives no byte that differs from what was put into it. That may have been damaged already, in the store or on
        the way: whoever finds so calls `drop_copy`, and reads again.
"""

from __future__ import annotations

from deltaimg.store.copies import CopiesStore
from deltaimg.store.interface import Confirm, Parts, Store, always
from deltaimg.store.pack_cache import PIECE_BYTES, PackCache
from deltaimg.store.wrapped import WrappedStore


class CachedPacksStore(CopiesStore):
    """Reads ranges of packs from `cache`, and adds to it the packs that it puts and the ranges that it reads."""

    def __init__(self, inner: Store, cache: PackCache) -> None:
        super().__init__(inner, cache)
        self._cache = cache

    def stop_adding(self) -> None:
        """Keep nothing more: this host cannot open what it writes."""
        self._cache.stop()

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        if not self._cache.covers(name, offset, length):
            return self.inner.get_range(name, offset, length)
        pieces = range(offset // PIECE_BYTES, -(-(offset + length) // PIECE_BYTES))
        kept, start = self._cache.read(name, pieces), pieces.start * PIECE_BYTES
        data = kept.data
        if kept.missing:
            fetched = self._fetch(name, kept.missing)
            first = kept.missing.start * PIECE_BYTES - start
            end = kept.missing.stop * PIECE_BYTES - start
            # Where it is short, the object ends.
            behind = kept.data[end:] if first + len(fetched) == end else b""
            data = kept.data[:first] + fetched + behind if first or behind else fetched
        return data[offset - start : offset - start + length]

    def put(self, name: str, parts: Parts, confirm: Confirm = always) -> int:
        size_bytes = self.inner.put(name, parts, confirm)
        if self._cache.covers(name, 0, size_bytes):
            self._cache.add(name, parts)
        return size_bytes

    def _fetch(self, name: str, pieces: range) -> bytes:
        """Return pieces of a pack from the store, fewer only where it ends, and keep them."""
        fetched = self.inner.get_range(name, pieces.start * PIECE_BYTES, len(pieces) * PIECE_BYTES)
        if fetched:
            self._cache.add(name, [fetched], pieces.start)
        return fetched


def find_cached_packs(store: Store) -> CachedPacksStore | None:
    """Return the part of a store that keeps packs, if there is one."""
    while isinstance(store, WrappedStore):
        if isinstance(store, CachedPacksStore):
            return store
        store = store.inner
    return None
