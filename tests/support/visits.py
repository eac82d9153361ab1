# SPDX-License-Identifier: Apache-2.0
"""A store that lets another process act in the middle of a run, just before or just after one of its calls."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from deltaimg.store.interface import ANY_NAME, Layout, ObjectInfo, Store
from tests.support.wrapping import WrappedStore


class VisitedStore(WrappedStore):
    """Runs `act` once, at call number `at`, counted from 0."""

    def __init__(self, inner: Store, at: int, act: Callable[[], None], *, is_after: bool = False) -> None:
        super().__init__(inner)
        self.has_acted = False
        self._left, self._act, self._is_after = at, act, is_after
        self._lock = threading.Lock()

    @contextmanager
    def around(self, call: str) -> Iterator[None]:
        with self._lock:
            is_due, self._left = self._left == 0, self._left - 1
        if is_due and not self._is_after:
            self._visit()
        yield
        if is_due and self._is_after:
            self._visit()

    def list(self, prefix: str, layout: Layout = ANY_NAME) -> Iterator[ObjectInfo]:
        """List at once, so that whoever acts after it does so before anything that was listed is looked at."""
        yield from [*super().list(prefix, layout)]

    def _visit(self) -> None:
        self.has_acted = True
        self._act()
