# SPDX-License-Identifier: Apache-2.0
"""A folder of this machine as a store.

An object is written to `tmp/`, synced, and linked to its name, which fails where the name is taken; then the folder is
synced. So a name that exists has all its bytes, through a crash as well, and nothing is overwritten. What may be replaced
is renamed over its name instead.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress

from deltaimg.errors import ObjectExists, ObjectNotFound, PermissionDenied, StoreError, StoreFull, StoreUnavailable
from deltaimg.store.file_port import FilePort
from deltaimg.store.interface import Confirm, ObjectInfo, Parts, always, check_object_name, check_prefix

TEMPORARY = "tmp"
_MAX_LEVELS = 8
"""Of folders below one another: more than there ever are, and few enough to find out about a link to a folder above."""
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
"""What link() says on file systems that have no hard links, such as vfat, exFAT and some network mounts."""


class LocalStore:
    """Keeps each object as a file under `path`, its name being its relative path."""

    def __init__(self, path: str, port: FilePort | None = None) -> None:
        self._root = os.path.abspath(path)
        self._port = port or FilePort()
        self._known_folders: set[str] = set()
        self.location = path

    def put(self, name: str, parts: Parts, confirm: Confirm = always) -> int:
        try:
            return self._keep(name, parts, self._publish, confirm)
        except FileExistsError as error:
            self._settle(name)
            raise ObjectExists(name) from error
        except OSError as error:
            raise self._translate(name, error) from error

    def replace(self, name: str, parts: Parts, confirm: Confirm = always) -> int:
        try:
            return self._keep(name, parts, self._port.rename, confirm)
        except OSError as error:
            raise self._translate(name, error) from error

    def move(self, name: str, new_name: str) -> None:
        path, target = self._path_of(name), self._path_of(new_name)
        try:
            self._make_folders(os.path.dirname(target))
            self._publish(path, target)
            self._port.sync_folder(os.path.dirname(target))
            with suppress(FileNotFoundError):
                self._port.unlink(path)
            self._port.sync_folder(os.path.dirname(path))
        except FileNotFoundError as error:
            raise ObjectNotFound(name) from error
        except FileExistsError as error:
            raise ObjectExists(new_name) from error
        except OSError as error:
            raise self._translate(name, error) from error

    def get(self, name: str) -> bytes:
        return self._read(name, 0, None)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        return self._read(name, offset, length)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        yield from self._list_folder(check_prefix(prefix).removesuffix("/"))

    def delete(self, name: str) -> None:
        path = self._path_of(name)
        try:
            self._port.unlink(path)
            self._port.sync_folder(os.path.dirname(path))
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._translate(name, error) from error

    def list_unfinished(self) -> Iterator[ObjectInfo]:
        yield from self._list_folder(TEMPORARY)

    def remove_leftovers(self) -> None:
        """Remove temporary files of processes of this host that are gone; what cannot be removed is left alone."""
        with suppress(OSError):
            for entry in self._port.scan_folder(os.path.join(self._root, TEMPORARY)):
                host, _, rest = entry.name.rpartition("-")[0].rpartition("-")
                if host == socket.gethostname() and rest.isdigit() and not os.path.exists(f"/proc/{rest}"):
                    self._port.unlink(entry.path)

    # -- the steps of the above ------------------------------------------------------------------------------------

    def _path_of(self, name: str) -> str:
        return os.path.join(self._root, check_object_name(name))

    def _keep(self, name: str, parts: Parts, publish: Callable[[str, str], None], confirm: Confirm) -> int:
        """Write an object under a temporary name, `publish` it under its own, and make that durable."""
        target = self._path_of(name)
        temporary = os.path.join(self._root, TEMPORARY, f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(6)}")
        self._make_folders(os.path.dirname(temporary))
        self._make_folders(os.path.dirname(target))
        try:
            self._write_temporary(temporary, parts)
            # Syncing may have taken as long as a store hangs.
            confirm()
            publish(temporary, target)
        finally:
            with suppress(OSError):
                self._port.unlink(temporary)
        self._port.sync_folder(os.path.dirname(target))
        return sum(len(part) for part in parts)

    def _write_temporary(self, temporary: str, parts: Parts) -> None:
        descriptor = self._port.create(temporary)
        try:
            self._port.write(descriptor, parts)
            self._port.sync(descriptor)
        finally:
            self._port.close(descriptor)

    def _publish(self, temporary: str, target: str) -> None:
        try:
            self._port.link(temporary, target)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if os.path.lexists(target):
                raise FileExistsError(errno.EEXIST, "exists", target) from error
            self._port.rename(temporary, target)

    def _settle(self, name: str) -> None:
        """Make a name that somebody else has just linked as durable as one of our own."""
        try:
            self._port.sync_folder(os.path.dirname(self._path_of(name)))
        except OSError as error:
            raise self._translate(name, error) from error

    def _make_folders(self, folder: str) -> None:
        """Make sure of a folder, durably: one that is there may be of a process that died before it synced."""
        if folder in self._known_folders:
            return
        if folder.startswith(f"{self._root}/") or not self._port.is_folder(folder):
            parent = os.path.dirname(folder)
            self._make_folders(parent)
            with suppress(FileExistsError):
                self._port.make_folder(folder)
            self._port.sync_folder(parent)
        self._known_folders.add(folder)

    def _read(self, name: str, offset: int, length: int | None) -> bytes:
        try:
            return self._port.read(self._path_of(name), offset, length)
        except FileNotFoundError as error:
            raise ObjectNotFound(name) from error
        except OSError as error:
            raise self._translate(name, error) from error

    def _list_folder(self, prefix: str) -> Iterator[ObjectInfo]:
        try:
            if prefix.count("/") > _MAX_LEVELS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), prefix)
            entries = self._port.scan_folder(os.path.join(self._root, prefix))
            # A folder sorts with its slash, so that whole names come in order.
            for entry in sorted(entries, key=lambda entry: f"{entry.name}/" if _is_folder(entry) else entry.name):
                name = f"{prefix}/{entry.name}" if prefix else entry.name
                if name == TEMPORARY:
                    continue
                if _is_folder(entry):
                    yield from self._list_folder(name)
                else:
                    with suppress(FileNotFoundError):
                        found = entry.stat(follow_symlinks=False)
                        if stat.S_ISREG(found.st_mode):
                            yield ObjectInfo(name, found.st_size)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._translate(prefix, error) from error

    def _translate(self, name: str, error: OSError) -> StoreError:
        what = os.strerror(error.errno) if error.errno else str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return StoreFull(name, f"cannot be stored in {self.location}: {what}")
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            hint = "check owner and mode of the repository"
            return PermissionDenied(name, f"{self.location} refuses: {what}", hint=hint)
        if error.errno in (errno.EISDIR, errno.ELOOP, errno.ENOTDIR, errno.ENAMETOOLONG):
            return StoreError(name, f"is no object: {what}")
        return StoreUnavailable(name, f"{self.location} fails: {what}")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link to one that somebody has moved to another disk: objects below it are there."""
    return entry.is_dir()
