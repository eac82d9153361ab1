# SPDX-License-Identifier: Apache-2.0
"""Content of the latest delta records, kept on this host for the next backup.

A block that changes again and again is best encoded against what it was the last time. The image does not have that any more,
and to expand it from the repository takes the whole chain under it; so it is kept. One file for each record, under the
record's id. It is a hint: what is read is verified before it is used, and what cannot be written is missing the next time.

Memory  its id and a reference for each kept record, some 100 bytes.
"""

from __future__ import annotations

import os
from contextlib import suppress

from deltaimg.engine.backup.cache_folder import CONTENT
from deltaimg.large_files import write_large


class ContentCache:
    """Contents by record id; any number of threads may use one."""

    def __init__(self, folder: str | None, budget_bytes: int) -> None:
        """Args: folder: None keeps nothing. budget_bytes: what one run may add."""
        self._folder, self._budget_bytes = folder, budget_bytes
        self._folders: dict[bytes, str] = {}
        self._new_bytes = 0
        self.failure: OSError | None = None
        """Why a record could not be kept; none is kept from then on."""
        if folder is not None:
            self.look_also_in(folder)

    def __contains__(self, record_id: bytes) -> bool:
        return record_id in self._folders

    def look_also_in(self, folder: str) -> None:
        """Make what another image keeps in `folder` readable here as well."""
        with suppress(OSError, ValueError):
            names = [name for name in os.listdir(folder) if name.endswith(CONTENT)]
            self._folders = {bytes.fromhex(name.removesuffix(CONTENT)): folder for name in names} | self._folders

    def read(self, record_id: bytes, out: memoryview) -> bool:
        """Fill `out` with what was kept of a record; return whether that is as long. It may be anything."""
        folder = self._folders.get(record_id)
        if folder is None:
            return False
        try:
            with open(_path_in(folder, record_id), "rb", buffering=0) as file:
                is_as_long = os.fstat(file.fileno()).st_size == len(out) and file.readinto(out) == len(out)
                with suppress(OSError):
                    # What was used longest ago is removed first.
                    os.utime(file.fileno())
        except OSError:
            return False
        return is_as_long

    def put(self, record_id: bytes, content: memoryview) -> None:
        """Keep a record's content, unless this run has used up its budget."""
        if self._folder is None or self.failure or self._new_bytes + len(content) > self._budget_bytes:
            return
        path = _path_in(self._folder, record_id)
        try:
            os.makedirs(self._folder, 0o700, exist_ok=True)
            with open(path, "wb", buffering=0) as file:
                write_large(file.fileno(), (content,))
        except OSError as error:
            self.failure = error
            with suppress(OSError):
                os.unlink(path)
            return
        self._new_bytes += len(content)
        self._folders[record_id] = self._folder


def _path_in(folder: str, record_id: bytes) -> str:
    return os.path.join(folder, record_id.hex() + CONTENT)
