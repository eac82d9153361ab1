# SPDX-License-Identifier: Apache-2.0
"""Folders on a server: made, listed, and synced where the server can."""

from __future__ import annotations

import asyncio
import posixpath
from contextlib import suppress

import asyncssh

from deltaimg.errors import StoreUnavailable
from deltaimg.store.sftp.failures import LOST, MISSING
from deltaimg.store.sftp.session import Link

_FOLDER_MODE = 0o770
"""Of which the server's umask takes away."""
_LISTED_AT_ONCE = 64
_DIRECTORY, _LINK = asyncssh.FILEXFER_TYPE_DIRECTORY, asyncssh.FILEXFER_TYPE_SYMLINK

Entry = tuple[bytes, asyncssh.SFTPAttrs]
"""Name and status of something in a folder; of a link, its own."""


async def make_folder(link: Link, path: bytes) -> bool:
    """Make sure of a folder and of those above it; return whether it is new. Raises SFTPError."""
    try:
        await link.ask(link.client.mkdir(path, asyncssh.SFTPAttrs(permissions=_FOLDER_MODE)))
    except LOST:
        raise
    except MISSING:
        parent = posixpath.dirname(path)
        if parent in (b"", path):
            raise
        await make_folder(link, parent)
        await link.ask(link.client.mkdir(path, asyncssh.SFTPAttrs(permissions=_FOLDER_MODE)))
    except asyncssh.SFTPError:
        if not await is_folder(link, path):
            raise
        return False
    await sync_folder(link, posixpath.dirname(path) or b".")
    return True


async def is_folder(link: Link, path: bytes) -> bool:
    """Return whether a path is a folder, through links."""
    try:
        found = await link.ask(link.client.stat(path))
    except LOST:
        raise
    except asyncssh.SFTPError:
        return False
    return found.type == _DIRECTORY


async def sync_folder(link: Link, path: bytes) -> None:
    """Make the names in a folder durable, where the server opens folders, as OpenSSH on Linux does, and syncs them."""
    try:
        folder = await link.ask(link.client.open(path, asyncssh.FXF_READ, encoding=None))
        try:
            await link.ask(folder.fsync())
        finally:
            link.keep(asyncio.ensure_future(_close(link, folder)))
    except LOST:
        raise
    except asyncssh.SFTPError:
        pass


async def list_folders(link: Link, paths: list[bytes]) -> list[list[Entry]]:
    """Return what is in each of some folders; nothing of one that is not there. Raises SFTPError."""
    limit = asyncio.Semaphore(_LISTED_AT_ONCE)

    async def list_one(path: bytes) -> list[Entry]:
        async with limit:
            return await _list_folder(link, path)

    return list(await asyncio.gather(*map(list_one, paths)))


async def follow_links(link: Link, paths: list[bytes]) -> list[bool]:
    """Return of some links whether each leads to a folder; raises StoreUnavailable for one that leads nowhere."""
    return [await _follow(link, path) for path in paths]


async def _follow(link: Link, path: bytes) -> bool:
    try:
        found = await link.ask(link.client.stat(path))
    except MISSING as error:
        shown = path.decode("utf-8", "replace")
        raise StoreUnavailable(
            shown, "is a link to a place that is not there", hint="mount the disk that it leads to, on the server"
        ) from error
    return found.type == _DIRECTORY


async def _list_folder(link: Link, path: bytes) -> list[Entry]:
    found: list[Entry] = []
    with suppress(*MISSING):
        async for each in link.client.scandir(path):
            link.note_answer()
            name = each.filename
            assert isinstance(name, bytes)
            if name not in (b".", b".."):
                found.append((name, each.attrs))
    return found


async def _close(link: Link, folder: asyncssh.SFTPClientFile) -> None:
    with suppress(asyncssh.SFTPError, *LOST):
        await link.ask(folder.close())
