# SPDX-License-Identifier: Apache-2.0
"""A store around another one that is asked before each call and hears of it after: the base of what counts or waits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct

from deltaimg.errors import StoreError
from deltaimg.store.interface import ANY_NAME, Confirm, Layout, ObjectInfo, Parts, always
from deltaimg.store.wrapped import WrappedStore


class Call(Struct, frozen=True):
    """A call of a store, and the content that it moves."""

    kind: str
    """Such as `put`."""
    sent_bytes: int = 0
    received_bytes: int = 0
    """Known once it is done."""


class ObservedStore(WrappedStore):
    """Passes every call on, between `begin` and `end`; no `end` follows where it fails."""

    def begin(self, call: Call) -> None:
        """Do something before a call."""

    def end(self, call: Call) -> None:
        """Do something after a call that did not fail."""

    def put(self, name: str, parts: Parts, confirm: Confirm = always) -> int:
        self.begin(Call("put", sum(len(part) for part in parts)))
        size_bytes = self.inner.put(name, parts, confirm)
        self.end(Call("put", sent_bytes=size_bytes))
        return size_bytes

    def replace(self, name: str, parts: Parts, confirm: Confirm = always) -> int:
        self.begin(Call("replace", sum(len(part) for part in parts)))
        size_bytes = self.inner.replace(name, parts, confirm)
        self.end(Call("replace", sent_bytes=size_bytes))
        return size_bytes

    def get(self, name: str, max_bytes: int | None = None) -> bytes:
        self.begin(Call("get"))
        data = self.inner.get(name, max_bytes)
        self.end(Call("get", received_bytes=len(data)))
        return data

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        self.begin(Call("get_range"))
        data = self.inner.get_range(name, offset, length)
        self.end(Call("get_range", received_bytes=len(data)))
        return data

    def list(self, prefix: str, layout: Layout = ANY_NAME) -> Iterator[ObjectInfo]:
        self.begin(Call("list"))
        yield from self.inner.list(prefix, layout)
        self.end(Call("list"))

    def move(self, name: str, new_name: str) -> None:
        self.begin(Call("move"))
        self.inner.move(name, new_name)
        self.end(Call("move"))

    def delete(self, name: str) -> None:
        self.begin(Call("delete"))
        self.inner.delete(name)
        self.end(Call("delete"))

    def delete_many(self, names: Sequence[str]) -> dict[str, StoreError]:
        self.begin(Call("delete"))
        failed = self.inner.delete_many(names)
        self.end(Call("delete"))
        return failed
