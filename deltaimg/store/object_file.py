# SPDX-License-Identifier: Apache-2.0
"""How an object becomes a file: written under a temporary name, synced, and only then given its own."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress

from deltaimg.errors import LockLost
from deltaimg.store.failures import is_name_fault, name_refused
from deltaimg.store.file_names import make_temporary_name, to_name
from deltaimg.store.file_port import FilePort
from deltaimg.store.folders import Folders
from deltaimg.store.interface import Confirm, Parts

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
"""What link() says on file systems that have no hard links, such as vfat, exFAT and some network mounts."""
_COPY_BYTES = 8 << 20

Publish = Callable[[str, str], None]
"""Gives the file at the first path the second as its name."""


class ObjectFiles:
    """Writes files below `root`. Methods raise OSError, NameNotKept or LockLost."""

    def __init__(self, port: FilePort, folders: Folders, root: str, location: str, writer: Callable[[], str]) -> None:
        """Args: location: the store as the user named it. writer: as `make_temporary_name` takes it."""
        self._port, self._folders, self._root, self._location = port, folders, root, location
        self._writer = writer

    def write(self, target: str, parts: Parts, publish: Publish, confirm: Confirm) -> int:
        """Write a file, `publish` it as `target`, and make that durable; return its size.

        Args:
            confirm: called when all is written and synced, which may have taken as long as a store hangs.
        """
        folder = os.path.dirname(target)
        self._folders.make(folder)
        temporary = self._choose_temporary(folder)
        try:
            descriptor = self._folders.create(temporary)
            try:
                self._port.write(descriptor, parts)
                self._port.sync(descriptor)
            finally:
                self._port.close(descriptor)
            confirm()
            self._publish_as(publish, temporary, target)
        finally:
            with suppress(OSError):
                self._port.unlink(temporary)
        self._folders.check_kept(target, is_ours=True)
        self._port.sync_folder(folder)
        return sum(len(part) for part in parts)

    def publish_new(self, path: str, target: str) -> None:
        """Give a file a name that must not exist; raises FileExistsError."""
        try:
            self._port.link(path, target)
        except FileExistsError:
            # Over a network the answer may get lost, and the call be sent again.
            if not self._is_same(path, target):
                raise
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            self._port.rename_exclusively(path, target)

    def move(self, path: str, target: str) -> None:
        """Give a file a name that must not exist, durably, before it loses the one that it has."""
        self._folders.make(os.path.dirname(target))
        moved = self._port.stat(path)
        try:
            self.publish_new(path, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._copy(path, target)
        self._port.sync_folder(os.path.dirname(target))
        with suppress(FileNotFoundError):
            self._remove_if(path, lambda aside: os.path.samestat(self._port.stat(aside), moved))

    def _remove_if(self, path: str, is_wanted: Callable[[str], bool]) -> bool:
        """Remove the file that is found under a name if it is the one that is wanted, durably; return whether it was.

        Another file may have taken the name meanwhile: whatever has it is renamed first, then compared, and renamed back.
        """
        aside = self._choose_temporary(os.path.dirname(path))
        self._port.rename(path, aside)
        is_same = is_wanted(aside)
        if not is_same:
            with suppress(FileExistsError):
                self.publish_new(aside, path)
        with suppress(FileNotFoundError):
            self._port.unlink(aside)
        self._port.sync_folder(os.path.dirname(path))
        return is_same

    def _copy(self, path: str, target: str) -> None:
        """Give what is at `path` a name on another disk."""
        temporary = self._choose_temporary(os.path.dirname(target))
        size_bytes = self._port.stat(path).st_size
        try:
            descriptor = self._folders.create(temporary)
            try:
                for offset in range(0, size_bytes, _COPY_BYTES):
                    self._port.write(descriptor, [self._port.read(path, offset, min(_COPY_BYTES, size_bytes - offset))])
                self._port.sync(descriptor)
            finally:
                self._port.close(descriptor)
            self.publish_new(temporary, target)
        finally:
            with suppress(OSError):
                self._port.unlink(temporary)

    def _publish_as(self, publish: Publish, temporary: str, target: str) -> None:
        try:
            publish(temporary, target)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and self._is_taken_away(temporary):
                raise LockLost(self._location) from error  # What a run writes is never removed while its lock is held.
            if is_name_fault(error, os.path.basename(target), is_folder_fine=self._is_there(temporary)):
                name = to_name(os.path.relpath(target, self._root))
                raise name_refused(self._location, name, error) from error
            raise

    def _choose_temporary(self, folder: str) -> str:
        return os.path.join(folder, make_temporary_name(self._writer()))

    def _is_taken_away(self, temporary: str) -> bool:
        """Return whether a file was removed from a folder that still exists."""
        return not self._is_there(temporary) and self._port.is_folder(os.path.dirname(temporary))

    def _is_there(self, path: str) -> bool:
        with suppress(OSError):
            self._port.stat(path)
            return True
        return False

    def _is_same(self, path: str, other: str) -> bool:
        with suppress(OSError):
            return os.path.samestat(self._port.stat(path), self._port.stat(other))
        return False
