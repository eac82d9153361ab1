# SPDX-License-Identifier: Apache-2.0
"""A folder of a server that speaks SFTP, as a store. Nothing but SFTP is asked of the server: no shell, no program.

An object is written under a temporary name beside its own, synced (fsync@openssh.com), and given its name by a hard link
(hardlink@openssh.com), which fails where the name is taken; then the folder is synced, which OpenSSH on Linux does as well.
What may be replaced is renamed over its name (posix-rename@openssh.com).

A connection that was lost is made again, and what is safe to do twice is done again; a file that was half written is
continued. Whether a call took effect whose answer was lost is decided by what is there.

Always  names are distinguished byte for byte: a folder that the server takes for another is refused.
Memory  a few MiB a call, and what is read.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import asyncssh

from deltaimg.errors import NotAnObject, ObjectExists, ObjectNotFound, StoreError, StoreUnavailable
from deltaimg.posix import describe_mode
from deltaimg.store.failures import name_folded
from deltaimg.store.file_names import find_folded, find_writer, make_temporary_name
from deltaimg.store.interface import (
    ANY_NAME,
    Confirm,
    Layout,
    ObjectInfo,
    Pace,
    Parts,
    StoreProperties,
    Unfinished,
    always,
    check_object_name,
    check_prefix,
)
from deltaimg.store.sftp import publish
from deltaimg.store.sftp.address import SftpAddress
from deltaimg.store.sftp.failures import MISSING, diagnose, translate
from deltaimg.store.sftp.folders import list_folders, make_folder
from deltaimg.store.sftp.session import Link, Session, SessionLimits
from deltaimg.store.sftp.transfer import PROBABLY_REGULAR, Upload, read_file, write_file
from deltaimg.store.sftp.walk import Found, to_bytes, to_text, walk

_PARALLEL_CALLS = 48
"""A server does one thing after another; more than this fill no line further."""
_KEPT_EVERYWHERE = re.compile(rb"[0-9a-f]{2}|[0-9a-f]{16,}")
"""Folders of packs, and digests: no file system changes them."""
_GiveName = Callable[[Link, Upload, bytes, str, str], Coroutine[Any, Any, None]]


class SftpStore:
    """Keeps each object as a file below a folder of a server."""

    def __init__(
        self, address: SftpAddress, *, writer: Callable[[], str] = lambda: "", limits: SessionLimits | None = None
    ) -> None:
        """Args: writer: who puts objects now, as `make_temporary_name` takes it."""
        self.location = address.location
        self._root = address.path
        self._inside = posixpath.join(address.path, b"")
        self._writer = writer
        self._session = Session(address, limits)
        self._known_folders: set[bytes] = set()

    @property
    def properties(self) -> StoreProperties:
        return StoreProperties(is_shared=True, is_remote=True, parallel_requests=_PARALLEL_CALLS)

    def keep_pace(self, pace: Pace) -> None:
        """Let all transfers from now on wait as `pace` says."""
        self._session.pace = pace

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    # -- writing -----------------------------------------------------------------------------------------------------

    def put(self, name: str, parts: Parts, confirm: Confirm = always) -> int:
        return self._write(name, parts, confirm, publish.publish_new)

    def replace(self, name: str, parts: Parts, confirm: Confirm = always) -> int:
        return self._write(name, parts, confirm, publish.publish_over)

    def move(self, name: str, new_name: str) -> None:
        path, target = self._path_of(name), self._path_of(new_name)
        claims: set[bytes] = set()
        with self._translated(name):
            self._session.run(name, lambda link: read_file(link, path, name, 0, 0))
            self._make_folder(posixpath.dirname(target), new_name)
            self._session.run(name, lambda link: publish.move(link, path, target, (name, new_name), claims))

    def delete(self, name: str) -> None:
        path = self._path_of(name)
        with self._translated(name):
            self._session.run(name, lambda link: publish.remove(link, path))

    def delete_many(self, names: Sequence[str]) -> dict[str, StoreError]:
        failed: dict[str, StoreError] = {}
        paths: dict[str, bytes] = {}
        for name in names:
            try:
                paths[name] = self._path_of(name)
            except StoreError as error:
                failed[name] = error
        if paths:
            errors = self._session.run(names[0], lambda link: publish.remove_all(link, list(paths.values())))
            found = zip(paths, errors, strict=True)
            failed |= {name: translate(self.location, name, error) for name, error in found if error is not None}
        return failed

    def make_folder(self, name: str) -> None:
        path = self._path_of(name)
        with self._writing(name, 0):
            self._make_folder(path, name)

    def remove_unfinished(self, name: str) -> None:
        path = self._path_of(name)
        self._session.try_once(lambda link: publish.remove_quietly(link, path))

    # -- reading -----------------------------------------------------------------------------------------------------

    def get(self, name: str, max_bytes: int | None = None) -> bytes:
        path = self._path_of(name)
        with self._translated(name):
            return self._session.run(name, lambda link: read_file(link, path, name, max_bytes=max_bytes))

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        path = self._path_of(name)
        with self._translated(name):
            return self._session.run(name, lambda link: read_file(link, path, name, offset, length))

    def list(self, prefix: str, layout: Layout = ANY_NAME) -> Iterator[ObjectInfo]:
        found: list[ObjectInfo] = []
        for each in self._walk(check_prefix(prefix), layout):
            if find_writer(posixpath.basename(each.name)) is not None:
                continue
            if each.type in PROBABLY_REGULAR and layout.has_object(each.name):
                found.append(ObjectInfo(each.name, each.size_bytes))
            else:
                layout.note_foreign(each.name, describe_mode(each.mode))
        yield from sorted(found, key=lambda each: each.name)

    def list_unfinished(self, layout: Layout = ANY_NAME) -> Iterator[Unfinished]:
        for each in self._walk("", layout):
            writer = find_writer(posixpath.basename(each.name))
            if writer is not None:
                yield Unfinished(each.name, each.size_bytes, writer, each.modified_s)

    # -- parts -------------------------------------------------------------------------------------------------------

    def _write(self, name: str, parts: Parts, confirm: Confirm, give_name: _GiveName) -> int:
        path = self._path_of(name)
        upload = Upload(self._choose_temporary(path), parts)
        size_bytes = upload.size_bytes
        with self._writing(name, size_bytes):
            self._make_folder(posixpath.dirname(path), name)
            try:
                self._session.run(name, lambda link: write_file(link, upload))
                confirm()
                self._session.run(name, lambda link: give_name(link, upload, path, name, self.location))
            except ObjectExists:
                self._session.run(name, lambda link: publish.remove(link, upload.path))
                raise
            except BaseException:
                self._session.try_once(lambda link: publish.remove_quietly(link, upload.path))
                raise
        return size_bytes

    def _read(self, name: str, path: bytes, most_bytes: int) -> bytes:
        """Return a file, or one byte more than `most_bytes` of it."""
        return self._session.run(name, lambda link: read_file(link, path, name, 0, most_bytes + 1))

    def _make_folder(self, path: bytes, name: str) -> None:
        """Make sure of a folder of the store, once; raises NameNotKept where the server takes it for another."""
        if path in self._known_folders:
            return
        if path.startswith(self._inside):
            self._make_folder(posixpath.dirname(path), name)
        self._session.run(name, lambda link: make_folder(link, path))
        if path.startswith(self._inside) and not _KEPT_EVERYWHERE.fullmatch(posixpath.basename(path)):
            self._check_kept(path)
        self._known_folders.add(path)

    def _check_kept(self, path: bytes) -> None:
        """Refuse a folder that the server keeps as, or takes for, one of another name."""
        [entries] = self._session.run("", lambda link: list_folders(link, [posixpath.dirname(path)]))
        there = (to_text(each) for each, _ in entries)
        other = find_folded(to_text(posixpath.basename(path)), there)
        if other is not None:
            raise name_folded(self.location, to_text(path.removeprefix(self._inside)), other)

    def _walk(self, prefix: str, layout: Layout) -> Iterator[Found]:
        with suppress(ObjectNotFound), self._translated(prefix):
            yield from walk(self._session, self._root, prefix, layout)

    def _path_of(self, name: str) -> bytes:
        return posixpath.join(self._root, to_bytes(check_object_name(name)))

    def _choose_temporary(self, path: bytes) -> bytes:
        return posixpath.join(posixpath.dirname(path), make_temporary_name(self._writer()).encode())

    @contextmanager
    def _writing(self, name: str, size_bytes: int) -> Iterator[None]:
        """As `_translated`; that something is not there means that a folder went while an object was put into it."""
        try:
            with self._translated(name, size_bytes):
                yield
        except ObjectNotFound as error:
            if isinstance(error, NotAnObject):
                raise
            self._known_folders.clear()
            raise StoreUnavailable(name, f"its folder in {self.location} went away while it was written") from error

    @contextmanager
    def _translated(self, name: str, size_bytes: int | None = None) -> Iterator[None]:
        """Make store errors of what the server says of an object; of one that was being written with what its disk says."""
        try:
            yield
        except MISSING as error:
            raise ObjectNotFound(name) from error
        except asyncssh.SFTPError as error:
            if size_bytes is not None and (found := self._diagnose(name, size_bytes)) is not None:
                raise found from error
            raise translate(self.location, name, error) from error

    def _diagnose(self, name: str, size_bytes: int) -> StoreError | None:
        with suppress(StoreError):
            return self._session.run(
                name, lambda link: diagnose(link.client, self._root, name, self.location, size_bytes)
            )
        return None
