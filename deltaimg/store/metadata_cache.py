# SPDX-License-Identifier: Apache-2.0
"""What a host keeps of the metadata in remote repositories: objects that never change, under the digests that name them.

    <folder>/metadata/ab/maps-abcd…     the object of this name, byte for byte

Any number of processes may use it. A file is written under another name and renamed, so that whoever reads it gets all of it;
what is read is compared with the digest that it is named by, and removed where it differs. All of it may be removed any time.
What it takes is bounded: what was used longest ago is removed first, when a process that added something is done.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress

from deltaimg.format.framing import name_object
from deltaimg.model import GIB
from deltaimg.store.cache_files import (
    TOUCH_S,
    CacheFile,
    count_bytes,
    list_entries,
    open_file,
    remove_files,
    trim_files,
)

BUDGET_BYTES = GIB
_FOLDER = "metadata"
_KEPT = re.compile(r"(index|maps|signatures)/([0-9a-f]{64})")
_FILE = re.compile(r"(index|maps|signatures)-[0-9a-f]{64}")
_TEMPORARY = re.compile(r"\.new-[0-9a-f]{16}")
_TEMPORARY_AGE_S = 86400.0


class MetadataCache:
    """The part of a host's cache, in `folder`, that is for metadata. No method fails: what cannot be kept is not there."""

    def __init__(self, folder: str, budget_bytes: int = BUDGET_BYTES) -> None:
        self._folder, self._budget_bytes = os.path.join(folder, _FOLDER), budget_bytes
        self._has_added = False

    def holds(self, name: str) -> bool:
        """Return whether objects of this name may be kept."""
        return _KEPT.fullmatch(name) is not None

    def read(self, name: str, max_bytes: int | None = None) -> bytes | None:
        """Return an object of at most `max_bytes` whose bytes have the digest in its name, or None."""
        most_bytes = self._budget_bytes if max_bytes is None else min(max_bytes, self._budget_bytes)
        path = self._path_of(name)
        try:
            with open(open_file(path), "rb") as file:
                status = os.fstat(file.fileno())
                # What is too large was damaged here, or is for the store to refuse.
                if status.st_size > most_bytes:
                    return None
                data = file.read()
        except OSError:
            return None
        if name_object([data]) != name.rpartition("/")[2]:
            self.remove(name)
            return None
        if time.time() - status.st_mtime > TOUCH_S:
            with suppress(OSError):
                os.utime(path)
        return data

    def add(self, name: str, data: bytes) -> None:
        """Keep an object, if its bytes have the digest in its name."""
        if len(data) > self._budget_bytes or name_object([data]) != name.rpartition("/")[2]:
            return
        path = self._path_of(name)
        temporary = os.path.join(os.path.dirname(path), f".new-{secrets.token_hex(8)}")
        with suppress(OSError):
            os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
            try:
                descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                with open(descriptor, "wb") as file:
                    file.write(data)
                os.replace(temporary, path)
                self._has_added = True
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary)
                raise

    def remove(self, name: str) -> None:
        """Forget an object; any name will do."""
        if self.holds(name):
            with suppress(OSError):
                os.unlink(self._path_of(name))

    def trim(self) -> None:
        """Keep to the budget, if this process has added something."""
        if not self._has_added:
            return
        self._has_added = False
        trim_files(self._list(), self._budget_bytes)

    def measure(self) -> int:
        """Return how many bytes are kept."""
        return count_bytes(self._list())

    def clear(self) -> int:
        """Remove all; return how many bytes that were."""
        return remove_files(self._folder, self._list())

    def _path_of(self, name: str) -> str:
        kind, _, digest = name.partition("/")
        return os.path.join(self._folder, digest[:2], f"{kind}-{digest}")

    def _list(self) -> Iterator[CacheFile]:
        """Yield all files, and remove what dead processes left."""
        for entry in list_entries(self._folder):
            with suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                if _FILE.fullmatch(entry.name):
                    yield CacheFile(entry.path, status.st_size, status.st_mtime)
                elif _TEMPORARY.fullmatch(entry.name) and time.time() - status.st_mtime > _TEMPORARY_AGE_S:
                    os.unlink(entry.path)
