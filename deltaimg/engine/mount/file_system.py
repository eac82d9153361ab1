# SPDX-License-Identifier: Apache-2.0
"""The calls of FUSE, answered from a tree of snapshots: what is asked for by path and handle, and errors as numbers.

mfusepy calls the methods by their names, on threads of libfuse. The kernel keeps what it has read, and reads ahead.

Source  fuse.h of libfuse 3, `struct fuse_operations`.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from deltaimg.engine.mount.opened import OpenedSnapshots
from deltaimg.engine.mount.tree import Entry, Folder, Link, SnapshotTree, time_in_ns
from deltaimg.errors import DeltaimgError
from deltaimg.format.manifest import Manifest

_BLOCK_BYTES = 4096
_SECTOR_BYTES = 512
_LONGEST_NAME = 255


class FileSystem:
    """A file system of snapshots that can only be read."""

    use_ns = True
    """For mfusepy: times are in ns."""

    def __init__(
        self, tree: SnapshotTree, opened: OpenedSnapshots, warn: Callable[[str], None], *, is_shared: bool
    ) -> None:
        """Args: warn: called with each error that a program gets only the number of. is_shared: with other users."""
        self._tree, self._opened, self._warn = tree, opened, warn
        self._owner = {"st_uid": os.geteuid(), "st_gid": os.getegid()}
        self._file_mode, self._folder_mode = (0o444, 0o555) if is_shared else (0o400, 0o500)
        self._warned: set[str] = set()
        self.is_mounted = threading.Event()

    # -- what FUSE calls -------------------------------------------------------------------------------------------------

    def init(self, _path: str) -> None:
        """The file system is mounted."""
        self.is_mounted.set()

    def getattr(self, path: str, _handle: int | None = None) -> dict[str, int]:
        """Return the status of a file or folder."""
        with self._answering():
            return self._owner | self._describe(self._tree.find(path))

    def readdir(self, path: str, _handle: int) -> list[str]:
        """Return the names in a folder."""
        with self._answering():
            found = self._tree.find(path)
            if not isinstance(found, Folder):
                raise NotADirectoryError(errno.ENOTDIR, path)
            return [".", "..", *found.names]

    def readlink(self, path: str) -> str:
        """Return what a link stands for."""
        with self._answering():
            found = self._tree.find(path)
            if not isinstance(found, Link):
                raise OSError(errno.EINVAL, path)
            return found.target

    def open(self, path: str, flags: int) -> int:
        """Open a snapshot and return a handle."""
        with self._answering(path):
            found = self._tree.find(path)
            if not isinstance(found, Manifest):
                raise IsADirectoryError(errno.EISDIR, path)
            if flags & os.O_ACCMODE != os.O_RDONLY:
                raise OSError(errno.EROFS, path)
            return self._opened.open(found)

    def read(self, path: str, length: int, offset: int, handle: int) -> bytes:
        """Return a part of a snapshot, verified."""
        with self._answering(path):
            return self._opened.read(handle, offset, length)

    def release(self, path: str, handle: int) -> int:
        """Close a handle."""
        with self._answering(path):
            self._opened.close(handle)
        return 0

    def statfs(self, _path: str) -> dict[str, int]:
        """Say that it is full, as what can only be read is."""
        return {"f_bsize": _BLOCK_BYTES, "f_frsize": _BLOCK_BYTES, "f_namemax": _LONGEST_NAME}

    # -- parts -----------------------------------------------------------------------------------------------------------

    def _describe(self, found: Entry) -> dict[str, int]:
        match found:
            case Folder():
                return _with_times(found.changed_ns) | {"st_mode": stat.S_IFDIR | self._folder_mode, "st_nlink": 2}
            case Link():
                return _with_times(found.changed_ns) | {
                    "st_mode": stat.S_IFLNK | 0o777,
                    "st_nlink": 1,
                    "st_size": len(os.fsencode(found.target)),
                }
            case Manifest():
                # What holes there are is in the map, which is not read for a listing.
                allocated_bytes = min(found.statistics.allocated_bytes, found.size_bytes)
                return _with_times(time_in_ns(found)) | {
                    "st_mode": stat.S_IFREG | self._file_mode,
                    "st_nlink": 1,
                    "st_size": found.size_bytes,
                    "st_blocks": -(-allocated_bytes // _SECTOR_BYTES),
                }

    @contextmanager
    def _answering(self, path: str = "") -> Iterator[None]:
        """Turn an error of ours into a number; it is said once, since a program may ask for the same part again and again.

        Args:
            path: what it is about; without it, about the repository.
        """
        try:
            yield
        except FileNotFoundError as error:
            raise FileNotFoundError(errno.ENOENT, path) from error
        except DeltaimgError as error:
            said = f"{path.removeprefix('/')}: {error}" if path else str(error)
            if said not in self._warned:
                self._warned.add(said)
                self._warn(said)
            raise OSError(errno.EIO, path) from error


def _with_times(moment_ns: int) -> dict[str, int]:
    return dict.fromkeys(("st_mtime", "st_ctime", "st_atime"), moment_ns)
