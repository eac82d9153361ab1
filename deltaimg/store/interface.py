# SPDX-License-Identifier: Apache-2.0
"""What a repository requires of the store of its objects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

from msgspec import Struct

from deltaimg.errors import StoreError
from deltaimg.model import MIB

Parts = Sequence[bytes | memoryview]
"""The bytes of one object, in pieces that follow one another."""

Confirm = Callable[[], None]
"""Raises if what is about to become visible must not."""


def always() -> None:
    """The `Confirm` that accepts everything."""


class ObjectInfo(Struct, frozen=True):
    """One object of a listing."""

    name: str
    size_bytes: int
    is_as_sent: bool | None = None
    """Whether the store's digest of what it received is that of what this process has put; None where it tells none."""


class Layout(Struct, frozen=True):
    """Which names belong to the user of a store. Other files in it are not listed."""

    has_object: Callable[[str], bool]
    """Whether an object can have this name."""
    has_folder: Callable[[str], bool]
    """Whether objects can lie in this folder; one in which none can is not looked into."""
    note_foreign: Callable[[str, str], None]
    """Called for each thing that a listing leaves out: its name, and what it is, such as `a file`."""


ANY_NAME = Layout(lambda _name: True, lambda _name: True, lambda _name, _what: None)
"""Of a store whose user takes every name."""


class StoreProperties(Struct, frozen=True):
    """What holds for all of a store, now. Code asks for these, never for a class of store."""

    is_shared: bool
    """Whether other hosts may reach it, too; True where that is unknown."""
    folder: str | None = None
    """The folder of this host that it is, as the user named it; None for another kind of store."""
    is_remote: bool = False
    """Whether every call takes a round trip over a network, and may fail as networks do."""
    creates_exclusively: bool | None = True
    """Whether of several that put one name at once only one succeeds; None where only a trial shows it."""
    parallel_requests: int = 1
    """How many calls at once are worth making; more than one where calls wait for an answer most of their time."""
    read_bytes: int = 2 * MIB
    """How long a read should be where what follows is needed as well, or may be: reads of less take nearly as long."""


class Store(Protocol):
    """Keeps objects under names such as `packs/ab/abcd…`. Every method may raise StoreError."""

    @property
    def location(self) -> str:
        """Where it is, as the user named it."""
        ...

    @property
    def properties(self) -> StoreProperties:
        """What holds for all of it. Asked again, as a mount may change it."""
        ...

    def close(self) -> None:
        """Close connections; no other call may follow. Twice is no error, and nothing that was put is lost without it."""
        ...

    def put(self, name: str, parts: Parts, confirm: Confirm = always) -> int:
        """Keep an object and return its size. Once this returns, it is durable; until then it is not visible.

        Args:
            confirm: asked once all bytes are written, just before the object gets its name; what it raises ends the call,
                and nothing has changed.

        Raises:
            ObjectExists: an object of this name is there; it stays as it was. NameNotKept: the store cannot keep this name.
            LockLost: what was written was removed by another process, which considered this one dead.
        """
        ...

    def get(self, name: str, max_bytes: int | None = None) -> bytes:
        """Return a whole object.

        Raises:
            ObjectNotFound: there is none. ObjectTooLarge: it has more than `max_bytes`; none of it was read.
        """
        ...

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`, fewer only where the object ends; raises ObjectNotFound."""
        ...

    def list(self, prefix: str, layout: Layout = ANY_NAME) -> Iterator[ObjectInfo]:
        """Yield each object whose name begins with `prefix` and is one of `layout`, in order of name.

        Args:
            prefix: empty, or a folder and its slash.
        """
        ...

    def replace(self, name: str, parts: Parts, confirm: Confirm = always) -> int:
        """Replace the object of this name, if there is one, and return the size of the new one.

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

    def delete_many(self, names: Sequence[str]) -> dict[str, StoreError]:
        """Remove objects, durably, in any order; return the error of each that could not be removed.

        For where a request an object would take long: up to 1,000 names are one request in some stores.
        """
        ...

    def make_folder(self, name: str) -> None:
        """Make sure that objects can be put into a folder, where the store has folders; raises NameNotKept if it cannot."""
        ...


class Unfinished(Struct, frozen=True):
    """A file that is no object yet: it is being written, or its writer is dead."""

    name: str
    size_bytes: int
    writer: str
    """Who writes it, as given to the store; empty where it was not."""
    modified_s: float
    """When it was last written to, in seconds since 1970, by the clock of the file system."""


class Pace(Protocol):
    """How fast bytes may travel. Any number of threads may ask."""

    @property
    def piece_bytes(self) -> int:
        """How much may travel at once, so that no second has much more than its share."""
        ...

    def delay_sent(self, count: int) -> float:
        """Count `count` bytes that are about to be sent, and return how many seconds to wait before."""
        ...

    def delay_received(self, count: int) -> float:
        """Count `count` bytes that are about to be asked for, and return how many seconds to wait before."""
        ...

    def delay_request(self) -> float:
        """Count a request, and return how many seconds to wait before it is sent."""
        ...


@runtime_checkable
class KeepsPace(Protocol):
    """A store that moves bytes piece by piece, and can wait between them."""

    def keep_pace(self, pace: Pace) -> None:
        """Let all transfers from now on wait as `pace` says."""
        ...


@runtime_checkable
class TellsDigests(Protocol):
    """A store that keeps a digest of each object that it receives, and may tell it in a listing."""

    def note_digests(self) -> None:
        """Keep the digests of what is put from now on, so that listings say `is_as_sent`."""
        ...


@runtime_checkable
class HasGroups(Protocol):
    """A store whose objects can be a group's of this host."""

    def share(self, group: int) -> None:
        """Make the store, and let a group write to it and to all that is made in it; raises PermissionDenied."""
        ...


@runtime_checkable
class KeepsUnfinished(Protocol):
    """A store that puts objects in steps, so that a process that dies leaves something behind."""

    def list_unfinished(self, layout: Layout = ANY_NAME) -> Iterator[Unfinished]:
        """Yield what is being put now, or was when its process ended: no objects yet."""
        ...

    def remove_unfinished(self, name: str) -> None:
        """Remove what is left of a process that is dead; what cannot be removed stays."""
        ...


@runtime_checkable
class KeepsCopies(Protocol):
    """A store that may keep, on this host, what was put or read."""

    def drop_copy(self, name: str) -> None:
        """Forget what is kept of an object, so that the next read is one of the store itself; any name will do."""
        ...


@runtime_checkable
class ReadsAhead(Protocol):
    """A store that can read many objects at once, before they are asked for."""

    def reading_ahead(self, names: Iterable[str]) -> AbstractContextManager[None]:
        """Inside the context, read these objects in this order, ahead of the calls that get them."""
        ...


def delete_each(store: Store, names: Sequence[str]) -> dict[str, StoreError]:
    """Do as `Store.delete_many`, one call to `delete` after another."""
    failed: dict[str, StoreError] = {}
    for name in names:
        try:
            store.delete(name)
        except StoreError as error:
            failed[name] = error
    return failed


def check_object_name(name: str) -> str:
    """Return `name` if it can name an object; raises StoreError for one that a store could take for a way elsewhere."""
    if any(piece in ("", ".", "..") for piece in name.split("/")) or "\0" in name:
        raise StoreError(name, "is no possible object name")
    return name


def check_prefix(prefix: str) -> str:
    """Return `prefix` if it is valid for a listing: nothing, or the name of a folder and a slash."""
    if prefix:
        check_object_name(prefix.removesuffix("/"))
    return prefix
