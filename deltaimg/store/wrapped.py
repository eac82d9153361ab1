# SPDX-License-Identifier: Apache-2.0
"""A store around another one: the base of what adds one behaviour to every kind of store, such as retries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from deltaimg.errors import StoreError
from deltaimg.store.interface import (
    ANY_NAME,
    Confirm,
    KeepsCopies,
    KeepsUnfinished,
    Layout,
    ObjectInfo,
    Parts,
    Store,
    StoreProperties,
    Unfinished,
    always,
)


class WrappedStore:
    """Passes every call on to `inner`. Its promises, and the errors of its methods, are those of `Store`."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner

    @property
    def location(self) -> str:
        return self.inner.location

    @property
    def properties(self) -> StoreProperties:
        return self.inner.properties

    def close(self) -> None:
        self.inner.close()

    def put(self, name: str, parts: Parts, confirm: Confirm = always) -> int:
        return self.inner.put(name, parts, confirm)

    def get(self, name: str, max_bytes: int | None = None) -> bytes:
        return self.inner.get(name, max_bytes)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        return self.inner.get_range(name, offset, length)

    def list(self, prefix: str, layout: Layout = ANY_NAME) -> Iterator[ObjectInfo]:
        return self.inner.list(prefix, layout)

    def replace(self, name: str, parts: Parts, confirm: Confirm = always) -> int:
        return self.inner.replace(name, parts, confirm)

    def move(self, name: str, new_name: str) -> None:
        self.inner.move(name, new_name)

    def delete(self, name: str) -> None:
        self.inner.delete(name)

    def delete_many(self, names: Sequence[str]) -> dict[str, StoreError]:
        return self.inner.delete_many(names)

    def make_folder(self, name: str) -> None:
        self.inner.make_folder(name)

    def drop_copy(self, name: str) -> None:
        """Let `inner` forget what it keeps of an object on this host, if it is a store that does."""
        if isinstance(self.inner, KeepsCopies):
            self.inner.drop_copy(name)

    def list_unfinished(self, layout: Layout = ANY_NAME) -> Iterator[Unfinished]:
        """Yield what `inner` has, if it is one that keeps what is unfinished."""
        if isinstance(self.inner, KeepsUnfinished):
            yield from self.inner.list_unfinished(layout)

    def remove_unfinished(self, name: str) -> None:
        """Remove what `inner` has left of a process that is dead."""
        if isinstance(self.inner, KeepsUnfinished):
            self.inner.remove_unfinished(name)


def find_innermost(store: Store) -> Store:
    """Return the store inside all wrappers: what only some kinds of store can do is asked of it."""
    while isinstance(store, WrappedStore):
        store = store.inner
    return store
