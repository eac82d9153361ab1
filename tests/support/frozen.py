# SPDX-License-Identifier: Apache-2.0
"""A store whose user is frozen at one moment, while others go on; then it wakes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from deltaimg.repo.lock_holder import list_locks
from deltaimg.repo.lock_watch import remove_lock
from deltaimg.store.interface import ANY_NAME, Confirm, Layout, ObjectInfo, Parts, Store, always
from tests.support.wrapping import WrappedStore


class FrozenStore(WrappedStore):
    """Numbers all moments from 0: before and after each call, and in a put between its last question and its effect.

    At the moment number `at`, `meanwhile` runs, once.
    """

    def __init__(self, inner: Store, at: int, meanwhile: Callable[[], object]) -> None:
        super().__init__(inner)
        self.moments: list[str] = []
        self._at, self._meanwhile = at, meanwhile
        self._lock = threading.RLock()

    @property
    def has_acted(self) -> bool:
        return len(self.moments) > self._at

    @contextmanager
    def around(self, call: str) -> Iterator[None]:
        self._pass(f"before {call}")
        yield
        self._pass(f"after {call}")

    def put(self, name: str, parts: Parts, confirm: Confirm = always) -> int:
        return super().put(name, parts, self._confirm_and_freeze(name, confirm))

    def replace(self, name: str, parts: Parts, confirm: Confirm = always) -> int:
        return super().replace(name, parts, self._confirm_and_freeze(name, confirm))

    def list(self, prefix: str, layout: Layout = ANY_NAME) -> Iterator[ObjectInfo]:
        """List at once, so that what is done after it comes before anything that was listed is looked at."""
        yield from [*super().list(prefix, layout)]

    def _confirm_and_freeze(self, name: str, confirm: Confirm) -> Confirm:
        def ask() -> None:
            confirm()
            self._pass(f"confirmed {name}")

        return ask

    def _pass(self, moment: str) -> None:
        with self._lock:
            is_due = len(self.moments) == self._at
            self.moments.append(moment)
        if is_due:
            self._meanwhile()


def remove_all_locks(store: Store) -> bool:
    """Do what others do who consider all holders dead; return whether there was any."""
    locks = list_locks(store)
    for each in locks:
        remove_lock(store, each)
    return bool(locks)
