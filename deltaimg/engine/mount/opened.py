# SPDX-License-Identifier: Apache-2.0
"""The snapshots that are open, each once, however many programs have it open.

As long as a snapshot is open, a prune does not delete what it needs; a mount by itself keeps nothing from it.

Memory  of each open snapshot: its map and the numbers of its slots (`SnapshotContent`), and a cache of expanded records.
"""

from __future__ import annotations

import itertools
import threading

from msgspec import Struct

from deltaimg.engine.content.reader import SnapshotReader
from deltaimg.engine.content.snapshot import open_reader
from deltaimg.format.manifest import Manifest
from deltaimg.model import MIB
from deltaimg.repo.repository import Repository

_CACHE_BYTES = 64 * MIB


class _Opened(Struct):
    manifest: Manifest
    reader: SnapshotReader
    users: int


class OpenedSnapshots:
    """Readers by the handle of whoever opened a snapshot. Any number of threads may use one."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._lock = threading.Lock()
        self._handles = itertools.count(1)
        self._by_handle: dict[int, _Opened] = {}
        self._by_id: dict[str, _Opened] = {}

    def open(self, manifest: Manifest) -> int:
        """Return a handle for reading a snapshot, until `close`; raises as `open_reader`."""
        with self._lock:
            opened = self._by_id.get(manifest.id)
            if opened is None:
                reader = open_reader(self._repository, manifest, _CACHE_BYTES)
                opened = self._by_id[manifest.id] = _Opened(manifest, reader, 0)
            opened.users += 1
            handle = next(self._handles)
            self._by_handle[handle] = opened
            return handle

    def read(self, handle: int, offset: int, length: int) -> bytes:
        """Return what is there, fewer bytes only at the end of the image; raises as `SnapshotReader.read`."""
        return self._by_handle[handle].reader.read(offset, length)

    def close(self, handle: int) -> None:
        """Forget a handle; with its last one, a snapshot is closed."""
        with self._lock:
            opened = self._by_handle.pop(handle)
            opened.users -= 1
            if not opened.users:
                del self._by_id[opened.manifest.id]
                opened.reader.close()

    def close_all(self) -> None:
        """Close what is still open."""
        for handle in list(self._by_handle):
            self.close(handle)
