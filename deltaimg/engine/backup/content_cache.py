# SPDX-License-Identifier: Apache-2.0
"""Content of the latest delta records, kept on this host for the next night.

A block that changes every night is best encoded against what it was the night before. The image does not have that any more,
and to expand it from the repository takes the whole chain under it; so it is kept. One file for each record, under the
record's id. It is a hint: what is read is proven before it is used, and what cannot be written is not there the next night.

Memory  its id and a reference for each kept record, some 100 bytes.
"""

from __future__ import annotations

import os
from contextlib import suppress

_SUFFIX = ".content"


class ContentCache:
    """Contents by record id; any number of threads may use one."""

    def __init__(self, folder: str | None, budget_bytes: int) -> None:
        """Args: folder: None keeps nothing."""
        self._folder, self._budget_bytes = folder, budget_bytes
        self._folders: dict[bytes, str] = {}
        self._new_bytes = 0
        self.failure: OSError | None = None
        """What came in the way of keeping a record; none is kept from then on."""
        if folder is not None:
            self.look_also_in(folder)

    def __contains__(self, record_id: bytes) -> bool:
        return record_id in self._folders

    def look_also_in(self, folder: str) -> None:
        """Make what another image keeps in `folder` readable here as well."""
        with suppress(OSError, ValueError):
            names = [name for name in os.listdir(folder) if name.endswith(_SUFFIX)]
            self._folders = {bytes.fromhex(name.removesuffix(_SUFFIX)): folder for name in names} | self._folders

    def get(self, record_id: bytes, raw_bytes: int) -> bytes | None:
        """Return what was kept of a record, if it is as long as that; it may be anything."""
        folder = self._folders.get(record_id)
        if folder is None:
            return None
        try:
            with open(_path_in(folder, record_id), "rb") as file:
                content = file.read(raw_bytes + 1)
        except OSError:
            return None
        return content if len(content) == raw_bytes else None

    def put(self, record_id: bytes, content: memoryview) -> None:
        """Keep a record's content, unless this run has filled the budget already."""
        if self._folder is None or self.failure or self._new_bytes + len(content) > self._budget_bytes:
            return
        path = _path_in(self._folder, record_id)
        try:
            os.makedirs(self._folder, 0o700, exist_ok=True)
            with open(path, "wb") as file:
                file.write(content)
        except OSError as error:
            self.failure = error
            with suppress(OSError):
                os.unlink(path)
            return
        self._new_bytes += len(content)
        self._folders[record_id] = self._folder

    def trim(self) -> None:
        """Forget the oldest until the budget holds."""
        if self._folder is None:
            return
        with suppress(OSError):
            kept = [(each.stat(), each.path) for each in os.scandir(self._folder) if each.name.endswith(_SUFFIX)]
            excess = sum(status.st_size for status, _ in kept) - self._budget_bytes
            for status, path in sorted(kept, key=lambda each: each[0].st_mtime_ns):
                if excess <= 0:
                    break
                os.unlink(path)
                excess -= status.st_size


def _path_in(folder: str, record_id: bytes) -> str:
    return os.path.join(folder, record_id.hex() + _SUFFIX)
