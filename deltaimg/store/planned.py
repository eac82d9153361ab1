# SPDX-License-Identifier: Apache-2.0
"""A store as it would be after changes that are not made: `repair --dry-run` runs on one, and so says what a repair does.

What is put, replaced, moved or deleted is recorded here and visible to reads through it; the store below is only read.

Memory  a few hundred bytes a changed object; bytes go to a temporary file. Of new packs it keeps both ends, which is all that
        a repair reads of them: a dry run needs no room for the records that the repair would store.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator, Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from deltaimg.errors import (
    IntegrityError,
    NotAnObject,
    ObjectExists,
    ObjectNotFound,
    ObjectTooLarge,
    StoreError,
    UnsupportedFormat,
)
from deltaimg.format.framing import HEADER_BYTES
from deltaimg.format.pack import PACKS, count_tail_bytes, parse_pack_footer
from deltaimg.store.interface import (
    ANY_NAME,
    Confirm,
    Layout,
    ObjectInfo,
    Parts,
    Store,
    StoreProperties,
    always,
    check_object_name,
    check_prefix,
    delete_each,
)


class _Spooled(Struct):
    """An object that was put here: its pieces, each with its offset in it and in the temporary file, and its length."""

    size_bytes: int
    pieces: list[tuple[int, int, int]] = field(default_factory=list)


class _Elsewhere(Struct, frozen=True):
    """An object that is read from another store, or from this one under the name that it has there."""

    size_bytes: int
    store: Store
    name: str


class PlannedStore:
    """Changes to a store, kept apart from it."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner
        self.location = inner.location
        self._changed: dict[str, _Spooled | _Elsewhere] = {}
        self._removed: set[str] = set()
        self._spool = tempfile.TemporaryFile(prefix="deltaimg-dry-run-")
        self._lock = threading.RLock()

    @property
    def properties(self) -> StoreProperties:
        return replace(self._inner.properties, creates_exclusively=True)

    def close(self) -> None:
        """Forget the changes. The store below stays open."""
        self._spool.close()

    # -- writing -----------------------------------------------------------------------------------------------------

    def put(self, name: str, parts: Parts, confirm: Confirm = always) -> int:
        confirm()
        with self._lock:
            if self._has(check_object_name(name)):
                raise ObjectExists(name)
            return self._keep(name, parts, only_ends=name.startswith(PACKS))

    def replace(self, name: str, parts: Parts, confirm: Confirm = always) -> int:
        confirm()
        return self._keep(check_object_name(name), parts, only_ends=False)

    def borrow(self, name: str, store: Store, size_bytes: int) -> None:
        """Do as `replace` with the object of this name in another store, which is read on demand."""
        self._changed[name] = _Elsewhere(size_bytes, store, name)

    def move(self, name: str, new_name: str) -> None:
        check_object_name(name)
        if self._has(check_object_name(new_name)):
            raise ObjectExists(new_name)
        changed = self._changed.pop(name, None)
        if changed is None:
            if name in self._removed or not self._is_there(name):
                raise ObjectNotFound(name)
            folder = name[: name.rfind("/") + 1]
            size_bytes = next((found.size_bytes for found in self._inner.list(folder) if found.name == name), None)
            # What is no object, such as a link, has no size, and is none under its new name.
            changed = None if size_bytes is None else _Elsewhere(size_bytes, self._inner, name)
        self._removed.add(name)
        if changed is not None:
            self._changed[new_name] = changed

    def delete(self, name: str) -> None:
        self._changed.pop(check_object_name(name), None)
        self._removed.add(name)

    def delete_many(self, names: Sequence[str]) -> dict[str, StoreError]:
        return delete_each(self, names)

    def make_folder(self, name: str) -> None:
        check_object_name(name)

    # -- reading -----------------------------------------------------------------------------------------------------

    def get(self, name: str, max_bytes: int | None = None) -> bytes:
        changed = self._changed.get(check_object_name(name))
        if isinstance(changed, _Spooled):
            if max_bytes is not None and changed.size_bytes > max_bytes:
                raise ObjectTooLarge(name, changed.size_bytes, max_bytes)
            return self.get_range(name, 0, changed.size_bytes)
        if changed is not None:
            return changed.store.get(changed.name, max_bytes)
        if name in self._removed:
            raise ObjectNotFound(name)
        return self._inner.get(name, max_bytes)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        changed = self._changed.get(check_object_name(name))
        if isinstance(changed, _Spooled):
            return self._read(changed, offset, min(offset + length, changed.size_bytes))
        if changed is not None:
            return changed.store.get_range(changed.name, offset, length)
        if name in self._removed:
            raise ObjectNotFound(name)
        return self._inner.get_range(name, offset, length)

    def list(self, prefix: str, layout: Layout = ANY_NAME) -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        found = {each.name: each for each in self._inner.list(prefix, layout) if each.name not in self._removed}
        for name, changed in list(self._changed.items()):
            if name.startswith(prefix) and layout.has_object(name):
                found[name] = ObjectInfo(name, changed.size_bytes)
        yield from (found[name] for name in sorted(found))

    # -- parts -------------------------------------------------------------------------------------------------------

    def _has(self, name: str) -> bool:
        if name in self._changed:
            return True
        return name not in self._removed and self._is_there(name)

    def _is_there(self, name: str) -> bool:
        """Return whether the store below has something of this name, if only in an object's place."""
        check_object_name(name)
        try:
            self._inner.get_range(name, 0, 1)
        except ObjectNotFound as error:
            return isinstance(error, NotAnObject)
        except StoreError:
            return True
        return True

    def _keep(self, name: str, parts: Parts, *, only_ends: bool) -> int:
        data = b"".join(parts)
        kept = _Spooled(len(data))
        tail = len(data) - _count_end_bytes(name, data) if only_ends else 0
        spans = [(0, HEADER_BYTES), (tail, len(data))] if tail > HEADER_BYTES else [(0, len(data))]
        with self._lock:
            for start, end in spans:
                place = self._spool.seek(0, 2)
                self._spool.write(data[start:end])
                kept.pieces.append((start, place, end - start))
            self._changed[name] = kept
        return len(data)

    def _read(self, kept: _Spooled, start: int, end: int) -> bytes:
        data = bytearray(max(0, end - start))
        with self._lock:
            for offset, place, length in kept.pieces:
                first, last = max(start, offset), min(end, offset + length)
                if first < last:
                    self._spool.seek(place + first - offset)
                    data[first - start : last - start] = self._spool.read(last - first)
        return bytes(data)


def _count_end_bytes(name: str, data: bytes) -> int:
    """Return how long footer and trailer of a pack are; all of what is no pack."""
    try:
        parse_pack_footer(name, data)
    except (IntegrityError, UnsupportedFormat):
        return len(data)
    return count_tail_bytes(data)
