# SPDX-License-Identifier: Apache-2.0
"""A folder of this machine as a store.

An object is written under a temporary name beside its own, synced, and linked to its name, which fails where the name is
taken; then the folder is synced. So a name that exists has all its bytes, through a crash as well, and nothing is overwritten.
What may be replaced is renamed over its name instead. Any folder of the store may be a link to one on another disk.

Always  names are distinguished byte for byte: where the file system takes one for another, the second is refused.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from deltaimg.errors import NotAnObject, ObjectExists, ObjectNotFound, ObjectTooLarge, StoreError, StoreUnavailable
from deltaimg.posix import describe_mode
from deltaimg.store.failures import dangling_link, translate
from deltaimg.store.file_names import to_file_name
from deltaimg.store.file_port import FilePort
from deltaimg.store.file_system import is_on_one_host
from deltaimg.store.folder_walk import walk, walk_unfinished
from deltaimg.store.folders import Folders
from deltaimg.store.interface import (
    ANY_NAME,
    Confirm,
    Layout,
    ObjectInfo,
    Parts,
    StoreProperties,
    Unfinished,
    always,
    check_object_name,
    check_prefix,
    delete_each,
)
from deltaimg.store.object_file import ObjectFiles


class LocalStore:
    """Keeps each object as a file under `path`, its name being its relative path."""

    def __init__(self, path: str, port: FilePort | None = None, *, writer: Callable[[], str] = lambda: "") -> None:
        """Args: writer: who puts objects now, as `make_temporary_name` takes it."""
        self._root = os.path.abspath(path)
        self._port = port or FilePort()
        self._folders = Folders(self._port, self._root, path)
        self._files = ObjectFiles(self._port, self._folders, self._root, path, writer)
        self.location = path

    def share(self, group: int) -> None:
        """Make the store's folder, and let a group write to it and to all that is made in it; raises PermissionDenied."""
        with self._writing(""):
            self._folders.share(group)

    @property
    def properties(self) -> StoreProperties:
        return StoreProperties(is_shared=not is_on_one_host(self._root), folder=self.location)

    def close(self) -> None:
        """Do nothing: no file stays open between calls."""

    # -- writing -----------------------------------------------------------------------------------------------------

    def put(self, name: str, parts: Parts, confirm: Confirm = always) -> int:
        path = self._path_of(name)
        with self._writing(name):
            try:
                return self._files.write(path, parts, self._files.publish_new, confirm)
            except FileExistsError as error:
                self._folders.check_kept(path)
                with suppress(FileNotFoundError):
                    self._stat(name, path)
                # Another process has just linked it: make it as durable as one of our own.
                self._port.sync_folder(os.path.dirname(path))
                raise ObjectExists(name) from error

    def replace(self, name: str, parts: Parts, confirm: Confirm = always) -> int:
        path = self._path_of(name)
        with self._writing(name):
            return self._files.write(path, parts, self._port.rename, confirm)

    def move(self, name: str, new_name: str) -> None:
        path, target = self._path_of(name), self._path_of(new_name)
        with self._translated(name):
            try:
                self._files.move(path, target)
            except FileExistsError as error:
                raise ObjectExists(new_name) from error

    def delete(self, name: str) -> None:
        path = self._path_of(name)
        with suppress(ObjectNotFound), self._translated(name):
            self._port.unlink(path)
            self._port.sync_folder(os.path.dirname(path))

    def delete_many(self, names: Sequence[str]) -> dict[str, StoreError]:
        return delete_each(self, names)

    def make_folder(self, name: str) -> None:
        with self._writing(name):
            self._folders.make(self._path_of(name))

    def remove_unfinished(self, name: str) -> None:
        with suppress(OSError):
            self._port.unlink(os.path.join(self._root, to_file_name(name)))

    # -- reading -----------------------------------------------------------------------------------------------------

    def get(self, name: str, max_bytes: int | None = None) -> bytes:
        path = self._path_of(name)
        with self._translated(name):
            found = self._stat(name, path)
            if max_bytes is not None and found.st_size > max_bytes:
                raise ObjectTooLarge(name, found.st_size, max_bytes)
            return self._port.read(path, 0, found.st_size)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        path = self._path_of(name)
        with self._translated(name):
            self._stat(name, path)
            return self._port.read(path, offset, length)

    def list(self, prefix: str, layout: Layout = ANY_NAME) -> Iterator[ObjectInfo]:
        folder = check_prefix(prefix).removesuffix("/")
        with suppress(ObjectNotFound), self._translated(folder):
            # A folder that exists under another name only is not the requested one.
            if not folder or self._folders.find_folded(self._path_of(folder)) is None:
                yield from walk(self._port, self._root, folder, layout)

    def list_unfinished(self, layout: Layout = ANY_NAME) -> Iterator[Unfinished]:
        with self._translated(""):
            yield from walk_unfinished(self._port, self._root, layout)

    # -- paths and errors --------------------------------------------------------------------------------------------

    def _path_of(self, name: str) -> str:
        return os.path.join(self._root, to_file_name(check_object_name(name)))

    def _stat(self, name: str, path: str) -> os.stat_result:
        """Return what is known of an object's file, which is not opened before it is known to be one."""
        found = self._port.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise NotAnObject(name, describe_mode(found.st_mode))
        return found

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        """As `_translated`; that something is not there means that a folder went while an object was put into it."""
        try:
            with self._translated(name):
                yield
        except ObjectNotFound as error:
            if isinstance(error, NotAnObject):
                raise
            raise StoreUnavailable(name, f"its folder in {self.location} went away while it was written") from error

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
