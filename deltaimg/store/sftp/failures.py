# SPDX-License-Identifier: Apache-2.0
"""What a server, or the way to it, says of a call, as an error of the store.

SFTP has few codes, and OpenSSH answers `Failure` to most of what can go wrong: what a full disk or a read-only file system is
shows only in `statvfs`, which `diagnose` asks for.
"""

from __future__ import annotations

import asyncio
import os
import socket

import asyncssh

from deltaimg.errors import (
    NameNotKept,
    PermissionDenied,
    StoreError,
    StoreFull,
    StoreUnavailable,
)

LOST = (
    asyncssh.SFTPConnectionLost,
    asyncssh.SFTPNoConnection,
    asyncssh.DisconnectError,
    asyncssh.ChannelOpenError,
    ConnectionError,
    asyncio.IncompleteReadError,
)
"""The connection ended; what was asked may or may not have been done."""
MISSING = (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath)
_FULL = (asyncssh.SFTPNoSpaceOnFilesystem, asyncssh.SFTPQuotaExceeded)
_REFUSED = (asyncssh.SFTPPermissionDenied, asyncssh.SFTPWriteProtect)
_NAME_FAULTS = (asyncssh.SFTPBadMessage, asyncssh.SFTPInvalidFilename, asyncssh.SFTPInvalidParameter)
_READ_ONLY = 1
"""ST_RDONLY of statvfs@openssh.com."""
_CHECK_LINE = "look whether server and network are up, then run again"


def translate(location: str, name: str, error: asyncssh.SFTPError) -> StoreError:
    """Return the error for object `name` of the store at `location`."""
    what = _say(error)
    if isinstance(error, _FULL):
        return StoreFull(name, f"cannot be stored in {location}: {what}")
    if isinstance(error, _REFUSED):
        return PermissionDenied(location, f"{name}: {what}", hint="check owner and mode of the folder on the server")
    if isinstance(error, _NAME_FAULTS):
        return NameNotKept(name, f"the server of {location} does not accept this name: {what}")
    if isinstance(error, asyncssh.SFTPOpUnsupported):
        return StoreError(name, f"the server of {location} lacks what this takes: {what}", hint="use another server")
    return StoreUnavailable(name, f"{location} fails: {what}", hint="see the server's log, then run again")


async def diagnose(
    client: asyncssh.SFTPClient, path: bytes, name: str, location: str, size_bytes: int
) -> StoreError | None:
    """Return why a server may have failed to write `size_bytes` at `path`, if its file system shows it."""
    try:
        found = await client.statvfs(path)
    except asyncssh.SFTPError:
        return None
    if found.flags & _READ_ONLY:
        return PermissionDenied(
            location, "its file system is mounted read-only", hint="mount it for writing on the server"
        )
    free_bytes = found.bavail * (found.frsize or found.bsize)
    if free_bytes <= size_bytes or (found.files and not found.favail):
        return StoreFull(name, f"cannot be stored in {location}: no space left on the server ({free_bytes >> 20} MiB)")
    return None


def is_lasting(error: Exception) -> bool:
    """Return whether a failed attempt to connect is certain to fail again."""
    if isinstance(error, asyncssh.ConnectionLost | asyncssh.ChannelOpenError | ConnectionError | TimeoutError):
        return False
    return isinstance(error, asyncssh.Error | ValueError | StoreError)


def explain_connect(location: str, place: str, error: Exception) -> StoreError:
    """Return the error for a connection that could not be made."""
    if isinstance(error, asyncssh.PermissionDenied):
        return PermissionDenied(
            location,
            f"{place} accepts no key of this user: {_say(error)}",
            hint=f"see that 'ssh {place}' needs no password: add a key to the agent or to ~/.ssh, or name one as IdentityFile",
        )
    if isinstance(error, asyncssh.KeyEncryptionError | asyncssh.KeyImportError):
        return PermissionDenied(location, f"a key cannot be used: {_say(error)}", hint="add it to the agent: ssh-add")
    if isinstance(error, socket.gaierror):
        return StoreUnavailable(
            location, f"the name of {place} cannot be resolved: {error.strerror}", hint="check its spelling, and DNS"
        )
    if isinstance(error, TimeoutError | asyncio.TimeoutError):
        return StoreUnavailable(location, f"{place} does not answer", hint=_CHECK_LINE)
    if isinstance(error, ConnectionRefusedError):
        return StoreUnavailable(
            location, f"{place} refuses the connection", hint="check host and port, and that sshd is running"
        )
    if isinstance(error, OSError):
        what = os.strerror(error.errno) if error.errno else str(error)
        return StoreUnavailable(location, f"{place} cannot be reached: {what}", hint=_CHECK_LINE)
    if isinstance(error, asyncssh.SFTPError | asyncssh.ChannelOpenError):
        return StoreUnavailable(
            location, f"{place} offers no SFTP: {_say(error)}", hint="the server's sshd_config needs 'Subsystem sftp'"
        )
    return StoreUnavailable(location, f"{place}: no connection: {_say(error)}", hint=_CHECK_LINE)


def connection_lost(location: str, name: str, error: BaseException | None) -> StoreError:
    """Return the error for a call during which the connection ended, and could not be made again."""
    why = f": {_say(error)}" if error is not None and str(error) else ""
    lost = StoreUnavailable(name, f"the connection to {location} was lost{why}", hint=_CHECK_LINE)
    lost.was_retried = True
    return lost


def _say(error: BaseException) -> str:
    """Return what an error says, in one line that goes into a sentence."""
    text = " ".join((getattr(error, "reason", "") or str(error)).split()).rstrip(".")
    return text[:1].lower() + text[1:200] if text else type(error).__name__
