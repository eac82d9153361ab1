# SPDX-License-Identifier: Apache-2.0
"""A store whose index, maps and signatures are read from this host where it has them already.

They never change, and their names are the digests of their bytes. Names are still listed in the store: what is not there any
more is not found because it is cached. A command that looks for damage in the store uses no cache.
"""

from __future__ import annotations

from deltaimg.store.copies import CopiesStore
from deltaimg.store.interface import Confirm, Parts, Store, always
from deltaimg.store.metadata_cache import MetadataCache


class CachedStore(CopiesStore):
    """Reads metadata from `cache`, and adds to it what it reads or writes."""

    def __init__(self, inner: Store, cache: MetadataCache) -> None:
        super().__init__(inner, cache)
        self._cache = cache

    def get(self, name: str, max_bytes: int | None = None) -> bytes:
        if not self._cache.holds(name):
            return self.inner.get(name, max_bytes)
        data = self._cache.read(name, max_bytes)
        if data is None:
            data = self.inner.get(name, max_bytes)
            self._cache.add(name, data)
        return data

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        data = self._cache.read(name) if self._cache.holds(name) else None
        return self.inner.get_range(name, offset, length) if data is None else data[offset : offset + length]

    def put(self, name: str, parts: Parts, confirm: Confirm = always) -> int:
        size_bytes = self.inner.put(name, parts, confirm)
        if self._cache.holds(name):
            self._cache.add(name, b"".join(parts))
        return size_bytes
