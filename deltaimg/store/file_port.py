# SPDX-License-Identifier: Apache-2.0
"""The few calls through which the local store reaches the operating system.

They are in one class so that tests can fail each of them in turn, and can record what a power cut would have left.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence

from deltaimg.large_files import write_large
from deltaimg.posix import rename_exclusively, sync_folder

_FILE_MODE, _FOLDER_MODE = 0o660, 0o770
"""Of which the umask takes away."""
_LARGE_BYTES = 4 << 20
"""What is not left in the page cache: packs, and indexes of many records."""
_MAX_PARTS = 512
"""Below IOV_MAX, 1024 on Linux."""


class FilePort:
    """Thin: no policy, no translation of errors; every method raises OSError."""

    def create(self, path: str) -> int:
        """Create a file that must not exist, and return its descriptor."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, _FILE_MODE)

    def write(self, descriptor: int, parts: Sequence[bytes | memoryview]) -> None:
        """Write all of `parts`."""
        if sum(map(len, parts)) >= _LARGE_BYTES:
            write_large(descriptor, parts)
            return
        pending = [memoryview(part) for part in parts if len(part)]
        while pending:
            written = os.writev(descriptor, pending[:_MAX_PARTS])
            while pending and written >= len(pending[0]):
                written -= len(pending.pop(0))
            if written:
                pending[0] = pending[0][written:]

    def sync(self, descriptor: int) -> None:
        """Make the content of an open file durable."""
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        """Close a descriptor."""
        os.close(descriptor)

    def link(self, source: str, target: str) -> None:
        """Give a file a second name, which must not exist."""
        os.link(source, target, follow_symlinks=False)

    def rename(self, source: str, target: str) -> None:
        """Rename a file over whatever has the new name."""
        os.rename(source, target)

    def rename_exclusively(self, source: str, target: str) -> None:
        """Rename a file to a name that must not exist."""
        rename_exclusively(source, target)

    def unlink(self, path: str) -> None:
        """Remove a name."""
        os.unlink(path)

    def make_folder(self, path: str) -> None:
        """Make a folder."""
        os.mkdir(path, _FOLDER_MODE)

    def make_outer_folder(self, path: str) -> None:
        """Make a folder outside of the store, on the way to it."""
        os.mkdir(path)

    def remove_folder(self, path: str) -> None:
        """Remove an empty folder."""
        os.rmdir(path)

    def share_file(self, descriptor: int, group: int) -> None:
        """Let a group read and write a file, whatever the umask says."""
        _give_to_group(descriptor, group)
        os.fchmod(descriptor, _FILE_MODE)

    def share_folder(self, path: str, group: int) -> None:
        """Let a group read and write a folder, and all that is made in it belong to the group."""
        _give_to_group(path, group)
        os.chmod(path, _FOLDER_MODE | stat.S_ISGID)

    def sync_folder(self, path: str) -> None:
        """Make the names in a folder durable, where its file system can."""
        sync_folder(path)

    def is_folder(self, path: str) -> bool:
        """Return whether a path is a folder, through symbolic links."""
        return os.path.isdir(path)

    def stat(self, path: str) -> os.stat_result:
        """Return the status of `path`, of a symbolic link itself."""
        return os.lstat(path)

    def read(self, path: str, offset: int, length: int | None) -> bytes:
        """Return `length` bytes from `offset`, or all to the end; fewer only where the file ends."""
        # Not to wait for a writer if there is a pipe in place of an object.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.EISDIR, "is no regular file", path)
            wanted = max(0, found.st_size - offset if length is None else length)
            try:
                return _read_all(descriptor, offset, wanted)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                # A bad sector fails all that is read ahead with it, on XFS up to megabytes. Without that it fails its page.
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
                return _read_all(descriptor, offset, wanted)
        finally:
            os.close(descriptor)

    def scan_folder(self, path: str) -> Iterator[os.DirEntry[str]]:
        """Yield the entries of a folder, by name."""
        with os.scandir(path) as entries:
            yield from sorted(entries, key=lambda entry: entry.name)


def _read_all(descriptor: int, offset: int, length: int) -> bytes:
    got = os.pread(descriptor, length, offset)
    while len(got) < length and (more := os.pread(descriptor, length - len(got), offset + len(got))):
        got += more
    return got


def _give_to_group(file: int | str, group: int) -> None:
    if os.stat(file).st_gid != group:
        os.chown(file, -1, group)
