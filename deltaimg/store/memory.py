# SPDX-License-Identifier: Apache-2.0
"""A dictionary as a store, for tests and experiments; its objects are lost with the process."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from deltaimg.errors import ObjectExists, ObjectNotFound, ObjectTooLarge, StoreError
from deltaimg.store.interface import (
    ANY_NAME,
    Confirm,
    Layout,
    ObjectInfo,
    Parts,
    StoreProperties,
    always,
    check_object_name,
    check_prefix,
    delete_each,
)


class MemoryStore:
    """Keeps objects in `objects`, which tests may look into and damage."""

    is_shared = False

    def __init__(self, location: str = "memory") -> None:
        self.location = location
        self.objects: dict[str, bytes] = {}
        self._put_lock = threading.Lock()

    @property
    def properties(self) -> StoreProperties:
        return StoreProperties(is_shared=self.is_shared)

    def close(self) -> None:
        """Keep everything: another `Repository` may open the same store."""

    def put(self, name: str, parts: Parts, confirm: Confirm = always) -> int:
        data = b"".join(parts)
        confirm()
        with self._put_lock:
            if check_object_name(name) in self.objects:
                raise ObjectExists(name)
            self.objects[name] = data
        return len(data)

    def get(self, name: str, max_bytes: int | None = None) -> bytes:
        try:
            data = self.objects[check_object_name(name)]
        except KeyError as error:
            raise ObjectNotFound(name) from error
        if max_bytes is not None and len(data) > max_bytes:
            raise ObjectTooLarge(name, len(data), max_bytes)
        return data

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        return self.get(name)[offset : offset + length]

    def list(self, prefix: str, layout: Layout = ANY_NAME) -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        for name, data in sorted(self.objects.items()):
            if name.startswith(prefix):
                if layout.has_object(name):
                    yield ObjectInfo(name, len(data))
                else:
                    layout.note_foreign(name, "an object")

    def replace(self, name: str, parts: Parts, confirm: Confirm = always) -> int:
        data = b"".join(parts)
        confirm()
        self.objects[check_object_name(name)] = data
        return len(data)

    def move(self, name: str, new_name: str) -> None:
        self.put(new_name, [self.get(name)])
        self.delete(name)

    def delete_many(self, names: Sequence[str]) -> dict[str, StoreError]:
        return delete_each(self, names)

    def delete(self, name: str) -> None:
        self.objects.pop(check_object_name(name), None)

    def make_folder(self, name: str) -> None:
        check_object_name(name)
