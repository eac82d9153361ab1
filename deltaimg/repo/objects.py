# SPDX-License-Identifier: Apache-2.0
"""A repository's objects in a store: the one place through which all of them are listed, read and written.

Always  what has a name that no writer of ours makes is not listed. The first such thing is warned of, once.
Always  nothing is read that is larger than its kind allows, or, beyond `_UNSEEN_BYTES`, than its header says.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TypeVar

from deltaimg.errors import ObjectNotFound, ObjectTooLarge, StoreFull
from deltaimg.format.framing import HEADER_BYTES, Kind, parse_header
from deltaimg.memory import check_room
from deltaimg.model import MIB
from deltaimg.repo.keys import RESERVE, check_size, find_kind, has_folder
from deltaimg.store.interface import (
    ANY_NAME,
    Confirm,
    KeepsUnfinished,
    Layout,
    ObjectInfo,
    Parts,
    Store,
    Unfinished,
    always,
)

_UNSEEN_BYTES = MIB
"""An object of at most so many bytes is read without a look at its header."""
_MAX_FOREIGN = 1000
_Result = TypeVar("_Result")

_log = logging.getLogger(__name__)


def own_layout(note_foreign: Callable[[str, str], None]) -> Layout:
    """Return the layout of a store that holds a repository."""
    return Layout(lambda name: find_kind(name) is not None, has_folder, note_foreign)


class Objects:
    """A store of one repository. Itself a store, so that what wraps stores can wrap it."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.location = inner.location
        self.foreign: dict[str, str] = {}
        """What listings came across that is not ours, and what it is, such as `a file`; a thousand of them at most."""
        self.spends_reserve = False
        """Whether the reserve is given up when the store is full: while something is done that frees room."""
        self._layout = own_layout(self._note_foreign)

    @property
    def is_shared(self) -> bool:
        return self.inner.is_shared

    def list(self, prefix: str, layout: Layout = ANY_NAME) -> Iterator[ObjectInfo]:
        for found in self.inner.list(prefix, self._layout):
            if layout.has_object(found.name):
                yield found

    def get(self, name: str, max_bytes: int | None = None) -> bytes:
        kind = find_kind(name)
        if kind is None:
            return self.inner.get(name, max_bytes)
        limit = kind.max_bytes if max_bytes is None else min(max_bytes, kind.max_bytes)
        if kind.magic is None or kind.is_read_in_pieces or limit <= _UNSEEN_BYTES:
            return self.inner.get(name, limit)
        try:
            return self.inner.get(name, _UNSEEN_BYTES)
        except ObjectTooLarge as error:
            if error.size_bytes > limit:
                raise ObjectTooLarge(name, error.size_bytes, limit) from None
        size_bytes = min(limit, self._measure(kind.magic, name))
        check_room(name, size_bytes)
        return self.inner.get(name, size_bytes)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        return self.inner.get_range(name, offset, length)

    def put(self, name: str, parts: Parts, confirm: Confirm = always) -> int:
        _check_size(name, parts)
        return self._find_room(lambda: self.inner.put(name, parts, confirm))

    def replace(self, name: str, parts: Parts, confirm: Confirm = always) -> int:
        _check_size(name, parts)
        return self._find_room(lambda: self.inner.replace(name, parts, confirm))

    def move(self, name: str, new_name: str) -> None:
        self.inner.move(name, new_name)

    def delete(self, name: str) -> None:
        # On a file system that writes beside what it has, even that takes room.
        self._find_room(lambda: self.inner.delete(name))

    def delete_exactly(self, name: str, data: bytes) -> bool:
        return self.inner.delete_exactly(name, data)

    def make_folder(self, name: str) -> None:
        self.inner.make_folder(name)

    def list_unfinished(self) -> Iterator[Unfinished]:
        """Yield what is being put now, or was when its process ended, if the store can tell."""
        if isinstance(self.inner, KeepsUnfinished):
            yield from self.inner.list_unfinished(self._layout)

    def remove_unfinished(self, name: str) -> None:
        if isinstance(self.inner, KeepsUnfinished):
            self.inner.remove_unfinished(name)

    def _find_room(self, act: Callable[[], _Result]) -> _Result:
        """Do something that takes room, in the room of the reserve where there is no other; raises StoreFull."""
        try:
            return act()
        except StoreFull as error:
            if not self.spends_reserve:
                raise
            try:
                self.inner.get_range(RESERVE, 0, 1)
            except ObjectNotFound:
                raise error from None
            self.inner.delete(RESERVE)
            return act()

    def _note_foreign(self, name: str, what: str) -> None:
        if not self.foreign:
            _log.warning(
                "%s: %s that is not deltaimg's; it and others like it are ignored, 'deltaimg check' lists them",
                name,
                what,
            )
        if len(self.foreign) < _MAX_FOREIGN:
            self.foreign.setdefault(name, what)

    def _measure(self, magic: Kind, name: str) -> int:
        """Return how long an object says it is; raises IntegrityError where its header is damaged."""
        header = parse_header(magic, name, self.inner.get_range(name, 0, HEADER_BYTES))
        return HEADER_BYTES + header.body_bytes


def _check_size(name: str, parts: Parts) -> None:
    """Refuse to write what no reader would read."""
    assert find_kind(name) is not None, f"{name} is no name of a repository's object"
    check_size(name, sum(len(part) for part in parts))
