# SPDX-License-Identifier: Apache-2.0
"""The folders of a local store: made durably, open to those to whom the store's own folder is, and true to their names.

A store whose folder is writable for its group and has the setgid bit is shared by that group: whoever writes to it, and
whatever their umask is, the group can write the new files. All else follows the umask, but nothing is ever open to
other users: an image holds what its guest keeps secret.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from contextlib import suppress

from deltaimg.store.failures import is_name_fault, name_folded, name_refused
from deltaimg.store.file_names import find_folded, to_name
from deltaimg.store.file_port import FilePort

_KEPT_EVERYWHERE = re.compile(r"[0-9a-f]{16,}")
"""Digests: no file system changes them, and no user chooses them."""
_SHARED = stat.S_ISGID | stat.S_IWGRP


class Folders:
    """Makes folders and files in a store at `root`. Methods raise OSError, or NameNotKept."""

    def __init__(self, port: FilePort, root: str, location: str) -> None:
        """Args: location: the store as the user named it."""
        self._port, self._root, self._location = port, root, location
        self._known: set[str] = set()
        self._group: int | None = None

    def make(self, folder: str) -> None:
        """Make sure of a folder, durably: one that is there may be of a process that died before it synced."""
        if folder in self._known:
            return
        is_root = folder == self._root
        if folder.startswith(f"{self._root}/"):
            self.make(os.path.dirname(folder))
            self._make_own(folder)
        elif not self._port.is_folder(folder):
            self.make(os.path.dirname(folder))
            with suppress(FileExistsError):
                self._port.make_folder(folder) if is_root else self._port.make_outer_folder(folder)
            self._port.sync_folder(os.path.dirname(folder))
        if is_root:
            self._group = self._find_group()
        self._known.add(folder)

    def create(self, path: str) -> int:
        """Make a new file in a folder that was made sure of; return its descriptor."""
        descriptor = self._port.create(path)
        if self._group is not None:
            with suppress(OSError):  # a file system without groups has no need
                self._port.share_file(descriptor, self._group)
        return descriptor

    def share(self, group: int) -> None:
        """Make the store's folder, and share it with a group; all that is made in it is shared from then on."""
        is_new = not self._port.is_folder(self._root)
        self.make(self._root)
        try:
            self._port.share_folder(self._root, group)
        except OSError:
            if is_new:
                self._port.remove_folder(self._root)
            self._known.discard(self._root)
            raise
        self._group = group

    def check_kept(self, path: str, *, is_ours: bool = False) -> None:
        """Refuse a name that the file system keeps as, or takes for, another one.

        Args:
            is_ours: whether the file was just made, and is to be removed.
        """
        if _KEPT_EVERYWHERE.fullmatch(os.path.basename(path)) or (other := self.find_folded(path)) is None:
            return
        if is_ours:
            self._port.unlink(path)
        raise name_folded(self._location, self._name_of(path), to_name(other))

    def find_folded(self, path: str) -> str | None:
        """Return the other name under which the file system has what is at `path`, if it has it under another."""
        there = (entry.name for entry in self._port.scan_folder(os.path.dirname(path)))
        return find_folded(os.path.basename(path), there)

    def _make_own(self, folder: str) -> None:
        parent = os.path.dirname(folder)
        try:
            self._port.make_folder(folder)
        except FileExistsError:
            pass
        except OSError as error:
            is_parent_there = error.errno == errno.ENOENT and self._port.is_folder(parent)
            if is_name_fault(error, os.path.basename(folder), is_folder_fine=is_parent_there):
                raise name_refused(self._location, self._name_of(folder), error) from error
            raise
        else:
            if self._group is not None:
                with suppress(OSError):
                    self._port.share_folder(folder, self._group)
        self.check_kept(folder)
        self._port.sync_folder(parent)

    def _find_group(self) -> int | None:
        """Return the group that shares the store, if one does."""
        found = self._port.stat(os.path.join(self._root, ""))  # the slash, so that a link to a folder is followed
        return found.st_gid if found.st_mode & _SHARED == _SHARED else None

    def _name_of(self, path: str) -> str:
        return to_name(os.path.relpath(path, self._root))
