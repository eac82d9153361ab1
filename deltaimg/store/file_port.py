# SPDX-License-Identifier: Apache-2.0
"""The few calls through which the local store reaches the operating system.

They stand in one class so that tests can fail each of them in turn, and can record what a power cut would have left.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence

from deltaimg.posix import rename_exclusively, sync_folder

_MAX_PARTS = 512
"""Below IOV_MAX, 1024 on Linux."""


class FilePort:
    """Thin: no policy, no translation of errors; every method raises OSError."""

    def create(self, path: str) -> int:
        """Create a file that must not exist, and return its descriptor."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def write(self, descriptor: int, parts: Sequence[bytes | memoryview]) -> None:
        """Write all of `parts`."""
        pending = [memoryview(part) for part in parts if len(part)]
        while pending:
            written = os.writev(descriptor, pending[:_MAX_PARTS])
            while pending and written >= len(pending[0]):
                written -= len(pending.pop(0))
            if written:
                pending[0] = pending[0][written:]

    def sync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def link(self, source: str, target: str) -> None:
        """Give a file a second name, which must not exist."""
        os.link(source, target, follow_symlinks=False)

    def rename(self, source: str, target: str) -> None:
        os.rename(source, target)

    def rename_exclusively(self, source: str, target: str) -> None:
        """Rename a file to a name that must not exist."""
        rename_exclusively(source, target)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def make_folder(self, path: str) -> None:
        os.mkdir(path, 0o700)

    def sync_folder(self, path: str) -> None:
        """Make the names in a folder durable, where its file system can."""
        sync_folder(path)

    def is_folder(self, path: str) -> bool:
        return os.path.isdir(path)

    def stat(self, path: str) -> os.stat_result:
        """Return what stands at `path`, a link itself where it is one."""
        return os.lstat(path)

    def read(self, path: str, offset: int, length: int | None) -> bytes:
        """Return `length` bytes from `offset`, or all to the end; fewer only where the file ends."""
        # Not to wait for a writer, should a pipe stand in the place of an object.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.EISDIR, "is no regular file", path)
            wanted = found.st_size - offset if length is None else length
            got = os.pread(descriptor, max(0, wanted), offset)
            while len(got) < wanted and (more := os.pread(descriptor, wanted - len(got), offset + len(got))):
                got += more
            return got
        finally:
            os.close(descriptor)

    def scan_folder(self, path: str) -> Iterator[os.DirEntry[str]]:
        with os.scandir(path) as entries:
            yield from sorted(entries, key=lambda entry: entry.name)
