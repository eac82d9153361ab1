# SPDX-License-Identifier: Apache-2.0
"""Small files in which a host remembers something: `$XDG_STATE_HOME/deltaimg`, below `~/.local/state` where that is not set.

Best effort: without a home, or where a parent folder does not belong to this user, nothing is remembered.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def open_folder(*, makes: bool) -> Iterator[int]:
    """Open the folder of these files; raises OSError where there is none that only this user writes to."""
    path = find_folder()
    if not os.path.isabs(path):
        raise FileNotFoundError(path)
    if makes:
        _make_folders(path)
    descriptor = os.open(path, _FOLDER_FLAGS)
    try:
        _check_owner(os.fstat(descriptor))
        yield descriptor
    finally:
        os.close(descriptor)


def find_folder() -> str:
    """Return the path of the folder, which may not exist."""
    return os.path.join(os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state"), "deltaimg")


def _make_folders(path: str) -> None:
    """Make a folder and those that it is in, below one that is this user's own: root makes none in the home of another."""
    missing = []
    while not os.path.lexists(path):
        missing.append(path)
        path = os.path.dirname(path)
    _check_owner(os.stat(path))
    for each in reversed(missing):
        os.mkdir(each, 0o700)


def _check_owner(status: os.stat_result) -> None:
    if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError("not this user's own")


def read_file(folder: int, name: str, max_bytes: int) -> bytes | None:
    """Return the content of a file; None where it is missing, larger than `max_bytes`, or none of ours."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_size > max_bytes:
            return None
        return file.read(max_bytes)


def change_file(
    name: str, max_bytes: int, change: Callable[[bytes | None], bytes | None], *, makes: bool = True
) -> None:
    """Replace the content of a file by what `change` makes of it, while no other process changes it; raises OSError.

    Args:
        change: gets what `read_file` returns; returns None to leave the file as it is.
        makes: make the folder, if there is none.
    """
    with open_folder(makes=makes) as folder:
        fcntl.flock(folder, fcntl.LOCK_EX)
        data = change(read_file(folder, name, max_bytes))
        if data is not None:
            _write_file(folder, name, data)


def _write_file(folder: int, name: str, data: bytes) -> None:
    """Replace the content of a file, atomically and durably."""
    temporary = f".{name}.{secrets.token_hex(4)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise
