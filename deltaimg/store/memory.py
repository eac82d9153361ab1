# SPDX-License-Identifier: Apache-2.0
"""A dictionary as a store, for tests and experiments; gone with the process."""

from __future__ import annotations

from collections.abc import Iterator

from deltaimg.errors import ObjectExists, ObjectNotFound
from deltaimg.store.interface import ObjectInfo, Parts


class MemoryStore:
    """Keeps objects in `objects`, which tests may look into and damage."""

    def __init__(self, location: str = "memory") -> None:
        self.location = location
        self.objects: dict[str, bytes] = {}

    def put(self, name: str, parts: Parts) -> int:
        if name in self.objects:
            raise ObjectExists(name)
        self.objects[name] = b"".join(parts)
        return len(self.objects[name])

    def get(self, name: str) -> bytes:
        try:
            return self.objects[name]
        except KeyError as error:
            raise ObjectNotFound(name) from error

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        return self.get(name)[offset : offset + length]

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        for name in sorted(self.objects):
            if name.startswith(prefix):
                yield ObjectInfo(name, len(self.objects[name]))

    def delete(self, name: str) -> None:
        self.objects.pop(name, None)
