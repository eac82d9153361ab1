# SPDX-License-Identifier: Apache-2.0
"""A store around another one, for stores that let something happen before or after a call; one that notes its calls."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

from deltaimg.errors import StoreError
from deltaimg.store.interface import (
    ANY_NAME,
    Confirm,
    Layout,
    ObjectInfo,
    Parts,
    Store,
    StoreProperties,
    always,
    delete_each,
)

_CHANGING = ("put ", "replace ", "move ", "delete ")


class WrappedStore(ABC):
    """Passes every call on to `inner`, each within `around`. A listing lasts until its last object was taken."""

    def __init__(self, inner: Store) -> None:
        self.inner, self.location = inner, inner.location

    @property
    def properties(self) -> StoreProperties:
        return self.inner.properties

    def close(self) -> None:
        self.inner.close()

    @abstractmethod
    def around(self, call: str) -> AbstractContextManager[None]:
        """Return what a call, such as `put maps/3f…`, is made in."""

    def put(self, name: str, parts: Parts, confirm: Confirm = always) -> int:
        with self.around(f"put {name}"):
            return self.inner.put(name, parts, confirm)

    def get(self, name: str, max_bytes: int | None = None) -> bytes:
        with self.around(f"get {name}"):
            return self.inner.get(name, max_bytes)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        with self.around(f"get_range {name}"):
            return self.inner.get_range(name, offset, length)

    def list(self, prefix: str, layout: Layout = ANY_NAME) -> Iterator[ObjectInfo]:
        with self.around(f"list {prefix}"):
            yield from self.inner.list(prefix, layout)

    def replace(self, name: str, parts: Parts, confirm: Confirm = always) -> int:
        with self.around(f"replace {name}"):
            return self.inner.replace(name, parts, confirm)

    def move(self, name: str, new_name: str) -> None:
        with self.around(f"move {name}"):
            self.inner.move(name, new_name)

    def delete(self, name: str) -> None:
        with self.around(f"delete {name}"):
            self.inner.delete(name)

    def delete_many(self, names: Sequence[str]) -> dict[str, StoreError]:
        """Make a call of each, so that tests can count, fail and stop at every one."""
        return delete_each(self, names)

    def make_folder(self, name: str) -> None:
        self.inner.make_folder(name)


class WatchedStore(WrappedStore):
    """Notes every call in `calls`, such as `put maps/3f…`."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.calls: list[str] = []

    @property
    def changing(self) -> list[int]:
        """The numbers of the calls that changed something, counted from 0: what only reads leaves nothing half done."""
        return [number for number, call in enumerate(self.calls) if call.startswith(_CHANGING)]

    def around(self, call: str) -> AbstractContextManager[None]:
        self.calls.append(call)
        return nullcontext()
