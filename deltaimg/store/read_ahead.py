# SPDX-License-Identifier: Apache-2.0
"""A store of which objects are read before they are asked for, several at once: for one where each read is a round trip.

A caller that is about to read many small objects says which. What was read ahead is handed out once, to the `get` that asks for
it; a read that failed, or met a larger object than is read ahead, is made again by that `get`, so that errors are its own.

Memory  `_MOST_BYTES` for each of `_WINDOW` times as many objects as the store takes requests at once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from deltaimg.errors import DeltaimgError
from deltaimg.model import MIB
from deltaimg.store.interface import Store
from deltaimg.store.wrapped import WrappedStore
from deltaimg.threads import Workers

_WINDOW = 2
_MOST_BYTES = MIB // 2


class ReadAheadStore(WrappedStore):
    """Reads ahead what `reading_ahead` names. Any number of threads may use it."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self._lock = threading.Lock()
        self._batches: list[_Batch] = []
        self._workers: Workers | None = None

    @contextmanager
    def reading_ahead(self, names: Iterable[str]) -> Iterator[None]:
        """Inside the context, read these objects in this order, ahead of the calls that get them."""
        with self._lock:
            batch = _Batch(self._start_workers(), self.inner, names)
            self._batches.append(batch)
            batch.fill()
        try:
            yield
        finally:
            with self._lock:
                self._batches.remove(batch)
                batch.drop()

    def get(self, name: str, max_bytes: int | None = None) -> bytes:
        data = self._take(name)
        if data is None or (max_bytes is not None and len(data) > max_bytes):
            return self.inner.get(name, max_bytes)
        return data

    def close(self) -> None:
        if self._workers is not None:
            self._workers.close()
            self._workers = None
        self.inner.close()

    def _start_workers(self) -> Workers:
        if self._workers is None:
            self._workers = Workers(self.properties.parallel_requests, "deltaimg-read-ahead", only_reads=True)
        return self._workers

    def _take(self, name: str) -> bytes | None:
        """Return what was read ahead of an object, which is then forgotten; None if nothing was."""
        with self._lock:
            found = next((taken for batch in self._batches if (taken := batch.take(name)) is not None), None)
        if found is None:
            return None
        try:
            return found.result()
        except DeltaimgError:
            return None


class _Batch:
    """Objects that are read ahead together. Its callers hold the store's lock."""

    def __init__(self, workers: Workers, store: Store, names: Iterable[str]) -> None:
        self._workers, self._store = workers, store
        self._waiting = dict.fromkeys(names)
        self._begun: dict[str, Future[bytes]] = {}
        self._most = _WINDOW * store.properties.parallel_requests

    def fill(self) -> None:
        """Begin as many reads as may be under way or wait to be taken."""
        while self._waiting and len(self._begun) < self._most:
            name = next(iter(self._waiting))
            del self._waiting[name]
            self._begun[name] = self._workers.submit(self._store.get, name, _MOST_BYTES)

    def take(self, name: str) -> Future[bytes] | None:
        """Return the read of an object, if one was begun, and begin another; one that was not begun will not be."""
        self._waiting.pop(name, None)
        found = self._begun.pop(name, None)
        self.fill()
        return found

    def drop(self) -> None:
        """Cancel what has not begun."""
        self._waiting.clear()
        for each in self._begun.values():
            each.cancel()
        self._begun.clear()
