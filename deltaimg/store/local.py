# SPDX-License-Identifier: Apache-2.0
"""A folder of this machine as a store.

An object is written under a temporary name beside its own, synced, and linked to its name, which fails where the name is
taken; then the folder is synced. So a name that exists has all its bytes, through a crash as well, and nothing is overwritten.
What may be replaced is renamed over its name instead. Any folder of the store may be a link to one on another disk.

Always  names are told apart byte for byte: where the file system takes one for another, the second is refused.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from deltaimg.errors import NotAnObject, ObjectExists, ObjectNotFound, ObjectTooLarge
from deltaimg.posix import describe_mode
from deltaimg.store.failures import dangling_link, is_name_fault, name_folded, name_refused, translate
from deltaimg.store.file_names import find_folded, make_temporary_name, to_file_name, to_name
from deltaimg.store.file_port import FilePort
from deltaimg.store.folder_walk import walk, walk_unfinished
from deltaimg.store.interface import (
    ANY_NAME,
    Confirm,
    Layout,
    ObjectInfo,
    Parts,
    Unfinished,
    always,
    check_object_name,
    check_prefix,
)

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
"""What link() says on file systems that have no hard links, such as vfat, exFAT and some network mounts."""
_KEPT_EVERYWHERE = re.compile(r"[0-9a-f]{16,}")
"""Digests: no file system changes them, and nobody chooses them."""
_COPY_BYTES = 8 << 20


class LocalStore:
    """Keeps each object as a file under `path`, its name being its relative path."""

    def __init__(self, path: str, port: FilePort | None = None, *, writer: Callable[[], str] = lambda: "") -> None:
        """Args: writer: who puts objects now, as `make_temporary_name` takes it."""
        self._root = os.path.abspath(path)
        self._port = port or FilePort()
        self._writer = writer
        self._known_folders: set[str] = set()
        self.location = path

    def put(self, name: str, parts: Parts, confirm: Confirm = always) -> int:
        with self._translated(name):
            try:
                return self._keep(name, parts, self._publish, confirm)
            except FileExistsError as error:
                path = self._path_of(name)
                self._check_kept(name, path)
                with suppress(FileNotFoundError):
                    self._stat(name, path)
                # Somebody else has just linked it: make it as durable as one of our own.
                self._port.sync_folder(os.path.dirname(path))
                raise ObjectExists(name) from error

    def replace(self, name: str, parts: Parts, confirm: Confirm = always) -> int:
        with self._translated(name):
            return self._keep(name, parts, self._port.rename, confirm)

    def move(self, name: str, new_name: str) -> None:
        path, target = self._path_of(name), self._path_of(new_name)
        with self._translated(name):
            self._make_folders(os.path.dirname(target))
            try:
                self._publish(path, target)
            except FileExistsError as error:
                raise ObjectExists(new_name) from error
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                self._copy(path, target)
            self._port.sync_folder(os.path.dirname(target))
            with suppress(FileNotFoundError):
                self._port.unlink(path)
            self._port.sync_folder(os.path.dirname(path))

    def get(self, name: str, max_bytes: int | None = None) -> bytes:
        with self._translated(name):
            path = self._path_of(name)
            found = self._stat(name, path)
            if max_bytes is not None and found.st_size > max_bytes:
                raise ObjectTooLarge(name, found.st_size, max_bytes)
            return self._port.read(path, 0, found.st_size)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        with self._translated(name):
            path = self._path_of(name)
            self._stat(name, path)
            return self._port.read(path, offset, length)

    def list(self, prefix: str, layout: Layout = ANY_NAME) -> Iterator[ObjectInfo]:
        folder = check_prefix(prefix).removesuffix("/")
        with suppress(ObjectNotFound), self._translated(folder):
            if not self._is_folded(folder):
                yield from walk(self._port, self._root, folder, layout)

    def delete(self, name: str) -> None:
        path = self._path_of(name)
        with suppress(ObjectNotFound), self._translated(name):
            self._port.unlink(path)
            self._port.sync_folder(os.path.dirname(path))

    def make_folder(self, name: str) -> None:
        with self._translated(name):
            self._make_folders(self._path_of(name))

    def list_unfinished(self, layout: Layout = ANY_NAME) -> Iterator[Unfinished]:
        with self._translated(""):
            yield from walk_unfinished(self._port, self._root, layout)

    def remove_unfinished(self, name: str) -> None:
        with suppress(OSError):
            self._port.unlink(os.path.join(self._root, to_file_name(name)))

    # -- the steps of the above ------------------------------------------------------------------------------------

    def _path_of(self, name: str) -> str:
        return os.path.join(self._root, to_file_name(check_object_name(name)))

    def _keep(self, name: str, parts: Parts, publish: Callable[[str, str], None], confirm: Confirm) -> int:
        """Write an object under a temporary name, `publish` it under its own, and make that durable."""
        target = self._path_of(name)
        folder = os.path.dirname(target)
        self._make_folders(folder)
        temporary = os.path.join(folder, make_temporary_name(self._writer()))
        try:
            self._write_temporary(temporary, parts)
            # Syncing may have taken as long as a store hangs.
            confirm()
            try:
                publish(temporary, target)
            except OSError as error:
                if is_name_fault(error, os.path.basename(target), is_folder_fine=self._is_there(temporary)):
                    raise name_refused(self.location, name, error) from error
                raise
        finally:
            with suppress(OSError):
                self._port.unlink(temporary)
        self._check_kept(name, target, is_ours=True)
        self._port.sync_folder(folder)
        return sum(len(part) for part in parts)

    def _write_temporary(self, temporary: str, parts: Parts) -> None:
        descriptor = self._port.create(temporary)
        try:
            self._port.write(descriptor, parts)
            self._port.sync(descriptor)
        finally:
            self._port.close(descriptor)

    def _publish(self, temporary: str, target: str) -> None:
        """Give a file a name that must not exist."""
        try:
            self._port.link(temporary, target)
        except FileExistsError:
            # Over a network the answer may get lost, and the call be sent again.
            if not self._is_same(temporary, target):
                raise
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            self._port.rename_exclusively(temporary, target)

    def _copy(self, path: str, target: str) -> None:
        """Give what is at `path` the name `target`, on another disk."""
        temporary = os.path.join(os.path.dirname(target), make_temporary_name(self._writer()))
        size_bytes = self._port.stat(path).st_size
        try:
            descriptor = self._port.create(temporary)
            try:
                for offset in range(0, size_bytes, _COPY_BYTES):
                    self._port.write(descriptor, [self._port.read(path, offset, min(_COPY_BYTES, size_bytes - offset))])
                self._port.sync(descriptor)
            finally:
                self._port.close(descriptor)
            self._publish(temporary, target)
        finally:
            with suppress(OSError):
                self._port.unlink(temporary)

    def _make_folders(self, folder: str) -> None:
        """Make sure of a folder, durably: one that is there may be of a process that died before it synced."""
        if folder in self._known_folders:
            return
        is_ours = folder.startswith(f"{self._root}/")
        if is_ours or not self._port.is_folder(folder):
            parent = os.path.dirname(folder)
            self._make_folders(parent)
            name = os.path.relpath(folder, self._root)
            try:
                self._port.make_folder(folder)
            except FileExistsError:
                pass
            except OSError as error:
                is_parent_there = error.errno == errno.ENOENT and self._port.is_folder(parent)
                if is_ours and is_name_fault(error, os.path.basename(folder), is_folder_fine=is_parent_there):
                    raise name_refused(self.location, name, error) from error
                raise
            if is_ours:
                self._check_kept(name, folder)
            self._port.sync_folder(parent)
        self._known_folders.add(folder)

    # -- names -----------------------------------------------------------------------------------------------------

    def _check_kept(self, name: str, path: str, *, is_ours: bool = False) -> None:
        """Refuse a name that the file system keeps as, or takes for, another one.

        Args:
            is_ours: whether the file was just made, and goes again.
        """
        if _KEPT_EVERYWHERE.fullmatch(os.path.basename(path)) or (other := self._find_folded(path)) is None:
            return
        if is_ours:
            self._port.unlink(path)
        raise name_folded(self.location, name, to_name(other))

    def _find_folded(self, path: str) -> str | None:
        file_name = os.path.basename(path)
        return find_folded(file_name, (entry.name for entry in self._port.scan_folder(os.path.dirname(path))))

    def _is_folded(self, name: str) -> bool:
        """Whether a folder is there under another name only."""
        return bool(name) and self._find_folded(self._path_of(name)) is not None

    def _stat(self, name: str, path: str) -> os.stat_result:
        """Return what is known of an object's file, which is not opened before it is known to be one."""
        found = self._port.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise NotAnObject(name, describe_mode(found.st_mode))
        return found

    def _is_there(self, path: str) -> bool:
        with suppress(OSError):
            self._port.stat(path)
            return True
        return False

    def _is_same(self, path: str, other: str) -> bool:
        with suppress(OSError):
            return os.path.samestat(self._port.stat(path), self._port.stat(other))
        return False

    # -- errors ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _translated(self, name: str) -> Iterator[None]:
        """Make store errors of what the operating system raises about an object."""
        try:
            yield
        except FileNotFoundError as error:
            self._check_links(name)
            raise ObjectNotFound(name) from error
        except OSError as error:
            raise translate(self.location, name, error) from error

    def _check_links(self, name: str) -> None:
        """Raise where a folder on the way to an object is a link to a place that is not there: its disk is not mounted."""
        names = name.split("/")
        for count in range(len(names) + 1):
            path = os.path.join(self._root, *map(to_file_name, names[:count]))
            if os.path.islink(path) and not os.path.exists(path):
                raise dangling_link("/".join(names[:count]) or self.location, path)
