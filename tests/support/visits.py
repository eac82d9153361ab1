# SPDX-License-Identifier: Apache-2.0
"""A store that lets somebody else act in the middle of a run, just before or just after one of its calls."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from deltaimg.store.interface import Confirm, ObjectInfo, Parts, Store, always

T = TypeVar("T")


class VisitedStore:
    """Passes everything on to `inner`; runs `act` once, at call number `at`, counted from 0."""

    def __init__(self, inner: Store, at: int, act: Callable[[], None], *, is_after: bool = False) -> None:
        self.inner, self.location = inner, inner.location
        self.has_acted = False
        self._left, self._act, self._is_after = at, act, is_after
        self._lock = threading.Lock()

    def put(self, name: str, parts: Parts, confirm: Confirm = always) -> int:
        return self._call(lambda: self.inner.put(name, parts, confirm))

    def get(self, name: str) -> bytes:
        return self._call(lambda: self.inner.get(name))

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        return self._call(lambda: self.inner.get_range(name, offset, length))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        yield from self._call(lambda: list(self.inner.list(prefix)))

    def replace(self, name: str, parts: Parts, confirm: Confirm = always) -> int:
        return self._call(lambda: self.inner.replace(name, parts, confirm))

    def move(self, name: str, new_name: str) -> None:
        self._call(lambda: self.inner.move(name, new_name))

    def delete(self, name: str) -> None:
        self._call(lambda: self.inner.delete(name))

    def _call(self, call: Callable[[], T]) -> T:
        with self._lock:
            is_due, self._left = self._left == 0, self._left - 1
        if is_due and not self._is_after:
            self.has_acted = True
            self._act()
        result = call()
        if is_due and self._is_after:
            self.has_acted = True
            self._act()
        return result
