# SPDX-License-Identifier: Apache-2.0
"""What the repository asks of the place where its objects are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from deltaimg.errors import StoreError

Parts = Sequence[bytes | memoryview]
"""The bytes of one object, in pieces that follow one another."""

Confirm = Callable[[], None]
"""Raises where what is about to be made visible may not be any more."""


def always() -> None:
    """The `Confirm` that has no objection."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object of a listing."""

    name: str
    size_bytes: int


class Store(Protocol):
    """Keeps objects under names such as `packs/ab/abcd…`. Every method may raise StoreError."""

    @property
    def location(self) -> str:
        """Where it is, as the user named it."""
        ...

    def put(self, name: str, parts: Parts, confirm: Confirm = always) -> int:
        """Keep an object and return its size. Once this returns, it is durable; until then nobody sees any of it.

        Args:
            confirm: asked once all bytes are written, just before the object gets its name; what it raises ends the call,
                and nothing has changed.

        Raises:
            ObjectExists: an object of this name is there; it stays as it was.
        """
        ...

    def get(self, name: str) -> bytes:
        """Return a whole object; raises ObjectNotFound."""
        ...

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`, fewer only where the object ends; raises ObjectNotFound."""
        ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield each object whose name begins with `prefix`, which is empty or a folder and its slash, in order of name."""
        ...

    def replace(self, name: str, parts: Parts, confirm: Confirm = always) -> int:
        """Keep an object in the place of what stands under its name, if anything does, and return its size.

        At every moment, and after a crash, the name has the old bytes or the new ones, whole. For the few objects that change:
        manifests of which a base was forgotten, lists of what is to be deleted, heartbeats of locks. `confirm` is as in `put`.
        """
        ...

    def move(self, name: str, new_name: str) -> None:
        """Give an object another name, durably; a crash may leave it under both, never under none.

        Raises:
            ObjectNotFound: there is none. ObjectExists: the new name is taken; nothing has changed.
        """
        ...

    def delete(self, name: str) -> None:
        """Remove an object, durably; one that is not there is no error."""
        ...


@runtime_checkable
class KeepsUnfinished(Protocol):
    """A store that puts objects in steps, so that a process that dies leaves something behind."""

    def list_unfinished(self) -> Iterator[ObjectInfo]:
        """Yield what is being put now, or was when its process ended: no objects yet."""
        ...


def check_object_name(name: str) -> str:
    """Return `name` if it can name an object; raises StoreError for one that a store could take for a way elsewhere."""
    if any(piece in ("", ".", "..") for piece in name.split("/")) or "\0" in name:
        raise StoreError(name, "is no possible object name")
    return name


def check_prefix(prefix: str) -> str:
    """Return `prefix` if a listing can be asked for it: nothing, or the name of a folder and a slash."""
    if prefix:
        check_object_name(prefix.removesuffix("/"))
    return prefix
