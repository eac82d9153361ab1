# SPDX-License-Identifier: Apache-2.0
"""How a file gets its name on a server, and loses it. All may be done again after the connection was lost in the middle.

What was asked last may have been done although no answer came. Then the server is asked what is there: an object that has
the very bytes of the one that was being put is that one.
"""

from __future__ import annotations

import asyncio
import posixpath
import time
from collections.abc import Awaitable, Sequence
from contextlib import suppress

import asyncssh

from deltaimg.errors import LockLost, ObjectExists, StoreError
from deltaimg.store.file_names import name_claim
from deltaimg.store.interface import Parts
from deltaimg.store.sftp.failures import LOST, MISSING
from deltaimg.store.sftp.folders import is_folder, sync_folder
from deltaimg.store.sftp.session import Link
from deltaimg.store.sftp.transfer import Upload, holds, read_file

_CREATE = asyncssh.FXF_WRITE | asyncssh.FXF_CREAT | asyncssh.FXF_EXCL
_REMOVED_AT_ONCE = 64
_CLAIM_S, _CLAIM_PAUSE_S, _CLAIM_TRIES = 60.0, 0.05, 20
"""As long as giving a file its name may take another process; how long to wait before looking again."""
_NO_REPLACE = "the server cannot replace a file (posix-rename@openssh.com), which locks and manifests take"


async def publish_new(link: Link, upload: Upload, target: bytes, name: str, location: str) -> None:
    """Give what was written a name that must not exist, durably.

    Raises:
        ObjectExists: it is taken. LockLost: what was written is gone. SFTPError.
    """
    if not upload.is_published:
        try:
            await link_or_rename(link, upload.path, target, upload.claims)
        except MISSING as error:
            if not await _was_published(link, upload, target, name):
                await _explain_missing(link, upload, error, location)
        except FileExistsError as error:
            if not await _was_published(link, upload, target, name):
                raise ObjectExists(name) from error
        upload.is_published = True
    await _finish(link, upload.path, target)


async def publish_over(link: Link, upload: Upload, target: bytes, name: str, location: str) -> None:
    """Give what was written a name, in place of whatever has it, durably; raises as `publish_new`."""
    if not upload.is_published:
        try:
            await link.ask(link.client.posix_rename(upload.path, target))
        except MISSING as error:
            if not await _was_published(link, upload, target, name):
                await _explain_missing(link, upload, error, location)
        except asyncssh.SFTPOpUnsupported as error:
            raise StoreError(location, _NO_REPLACE, hint="use OpenSSH, or another kind of store") from error
        upload.is_published = True
    await sync_folder(link, posixpath.dirname(target))


async def link_or_rename(link: Link, path: bytes, target: bytes, claims: set[bytes]) -> None:
    """Give a file a second name, or another one where the server cannot link; raises FileExistsError, SFTPError.

    Args:
        claims: what earlier attempts have claimed, for later ones.
    """
    try:
        await link.ask(link.client.link(path, target))
    except (*LOST, *MISSING):
        raise
    except asyncssh.SFTPError:
        if await _is_there(link, target):
            raise FileExistsError from None
        if not await _is_there(link, path):
            raise asyncssh.SFTPNoSuchFile("no such file") from None
        await _rename_alone(link, path, target, claims)
    finally:
        # Not where the connection is lost: the next attempt has the same claims.
        for claim in list(claims):
            await remove(link, claim)
            claims.discard(claim)


async def _rename_alone(link: Link, path: bytes, target: bytes, claims: set[bytes]) -> None:
    """Rename a file to a name that must not exist, where there are no hard links: in the server, or in its file system.

    What SFTP calls a rename looks for the new name first, and then renames: of two at once both could succeed. So both create a
    file of one name before, which only one can; what a process that died left is removed after `_CLAIM_S`.
    """
    claim = posixpath.join(posixpath.dirname(target), name_claim(posixpath.basename(target)).encode())
    if claim not in claims:
        claims.add(claim)
        await _claim(link, claim, target)
    try:
        if await _is_there(link, target):
            raise FileExistsError
        await link.ask(link.client.rename(path, target))
    except (*LOST, *MISSING):
        raise
    except asyncssh.SFTPError:
        if await _is_there(link, target):
            raise FileExistsError from None
        raise


async def _claim(link: Link, claim: bytes, target: bytes) -> None:
    """Create the file that only one can create; raises FileExistsError once `target` is there, SFTPError if it cannot."""
    absent, deadline = 0, time.monotonic() + _CLAIM_S
    while absent < _CLAIM_TRIES:
        try:
            file = await link.ask(link.client.open(claim, _CREATE, encoding=None))
        except LOST:
            raise
        except asyncssh.SFTPError as error:
            if await _is_there(link, target):
                raise FileExistsError from error
            if not await _is_there(link, claim):
                absent += 1  # whoever had it is done, or no file can be made here
                failure = error
            elif time.monotonic() > deadline:
                await remove_quietly(link, claim)
        else:
            await link.ask(file.close())
            return
        await asyncio.sleep(_CLAIM_PAUSE_S)
    raise failure


async def move(link: Link, path: bytes, target: bytes, names: tuple[str, str], claims: set[bytes]) -> None:
    """Give a file another name, durably, before it loses the one that it has.

    Raises:
        ObjectExists: the new name is taken. SFTPNoSuchFile: there is no such file. SFTPError.
    """
    try:
        await link_or_rename(link, path, target, claims)
    except MISSING:
        # On a second attempt the first may have done all of it.
        if not (link.attempt and await _is_there(link, target)):
            raise
    except FileExistsError as error:
        if not (link.attempt and await _is_same(link, path, target, names[0])):
            raise ObjectExists(names[1]) from error
    await sync_folder(link, posixpath.dirname(target))
    with suppress(*MISSING):
        await link.ask(link.client.remove(path))
    await sync_folder(link, posixpath.dirname(path))


async def remove(link: Link, path: bytes) -> None:
    """Remove a file, durably; one that is not there is no error. Raises SFTPError."""
    with suppress(*MISSING):
        await link.ask(link.client.remove(path))
        await sync_folder(link, posixpath.dirname(path))


async def remove_all(link: Link, paths: Sequence[bytes]) -> list[asyncssh.SFTPError | None]:
    """Do as `remove` with many files, many at once; return the error of each that could not be removed."""
    limit = asyncio.Semaphore(_REMOVED_AT_ONCE)

    async def remove_one(path: bytes) -> asyncssh.SFTPError | None:
        async with limit:
            try:
                await link.ask(link.client.remove(path))
            except MISSING:
                return None
            except LOST:
                raise
            except asyncssh.SFTPError as error:
                return error
            return None

    found = await asyncio.gather(*map(remove_one, paths))
    for folder in {posixpath.dirname(path) for path in paths}:
        await sync_folder(link, folder)
    return list(found)


async def remove_quietly(link: Link, *paths: bytes) -> None:
    """Remove files if they are there and the server lets us."""
    await asyncio.gather(*(_ignore_failure(link.ask(link.client.remove(path))) for path in paths))


async def _ignore_failure(request: Awaitable[None]) -> None:
    with suppress(asyncssh.SFTPError, *LOST):
        await request


async def _finish(link: Link, temporary: bytes, target: bytes) -> None:
    """Sync a folder, and remove the first name of a file in it that has two."""
    await asyncio.gather(
        _ignore_failure(link.ask(link.client.remove(temporary))), sync_folder(link, posixpath.dirname(target))
    )


async def _was_published(link: Link, upload: Upload, target: bytes, name: str) -> bool:
    """Return whether an earlier connection gave a file its name before it was lost."""
    return link.attempt > 0 and await holds(link, target, name, upload.parts)


async def _explain_missing(link: Link, upload: Upload, error: Exception, location: str) -> None:
    """Raise what it means that a written file is gone: another process considered this one dead, or its folder went."""
    if await is_folder(link, posixpath.dirname(upload.path)) and not await _is_there(link, upload.path):
        raise LockLost(location) from error
    raise error


async def _is_same(link: Link, path: bytes, other: bytes, name: str) -> bool:
    parts: Parts = [await read_file(link, path, name)]
    return await holds(link, other, name, parts)


async def _is_there(link: Link, path: bytes) -> bool:
    try:
        await link.ask(link.client.lstat(path))
    except LOST:
        raise
    except asyncssh.SFTPError:
        return False
    return True
