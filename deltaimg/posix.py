# SPDX-License-Identifier: Apache-2.0
"""What several layers ask of the operating system in the same way."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import pwd
import re
import resource
import stat
from contextlib import suppress

from deltaimg.errors import UsageError

_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISBLK, "a block device"),
    (stat.S_ISREG, "a file"),
)
_CANNOT_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EISDIR, errno.ENOTTY}
"""What file systems say that cannot sync a folder: WSL, some of FUSE, some network mounts."""
_WARNING = (
    "%s: its file system cannot sync folders (%s): a power cut may take back the names of files written last, though not their "
    "content"
)
_warned_devices: set[int] = set()
_log = logging.getLogger(__name__)
_OCTAL = re.compile(rb"\\([0-7]{3})")
_AT_FDCWD, _RENAME_NOREPLACE = -100, 1
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30, "riscv64": 30, "s390x": 282, "ppc64le": 273, "armv7l": 314, "i686": 289}
"""Numbers of the system call, by machine."""
_THREAD, _IDLE, _CLASS_SHIFT = 1, 3, 13


def describe_mode(mode: int) -> str:
    """Say in words what kind of file has this mode."""
    return next((words for is_kind, words in _KINDS if is_kind(mode)), "something unknown")


def unescape_path(text: bytes) -> str:
    """Return a path as it is, where tables of mounts have blanks and backslashes in octal: fstab(5), mountinfo, swaps."""
    return os.fsdecode(_OCTAL.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), text))


def name_user(number: int) -> str:
    """Return what a user is called here."""
    with suppress(KeyError):
        return pwd.getpwuid(number).pw_name
    return f"user {number}"


def rename_exclusively(source: str, target: str) -> None:
    """Rename to a name that must not exist; raises OSError, FileExistsError where it does.

    Where the file system has no such call there is a moment between the look and the rename.
    """
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is not None:
        if call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), ctypes.c_uint(_RENAME_NOREPLACE)) == 0:
            return
        number = ctypes.get_errno()
        if number not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise OSError(number, os.strerror(number), source, None, target)
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
    os.rename(source, target)


def sync_folder(path: str) -> None:
    """Make the names in a folder durable; where its file system cannot, warn once for each. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
        device = os.fstat(descriptor).st_dev
        if device not in _warned_devices:
            _log.warning(_WARNING, path, os.strerror(error.errno))
        _warned_devices.add(device)
    finally:
        os.close(descriptor)


def write_secret(path: str, data: bytes) -> None:
    """Write a new file that its owner alone can read, durably, or leave nothing behind; raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(os.path.dirname(path) or os.curdir)
    except BaseException:
        with suppress(OSError):
            os.unlink(path)
        raise


def forbid_core_dumps() -> None:
    """Have this process, and those that it starts, leave no core dump: what it has in memory would lie on a disk.

    The limit can be raised again by whoever does not mind.
    """
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def allow_many_files() -> None:
    """Let this process have as many files open as the system grants it, of which shells and services start with a part."""
    with suppress(OSError, ValueError):
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def use_idle_disk_time() -> None:
    """Have this thread, and those that it starts, use disks only while no other process does; raises UsageError.

    Like `ionice -c idle`: there is no function of the C library for it.
    """
    number = _IOPRIO_SET.get(os.uname().machine)
    if number is None or ctypes.CDLL(None, use_errno=True).syscall(number, _THREAD, 0, _IDLE << _CLASS_SHIFT):
        raise UsageError(
            "--ionice idle: this system cannot do that", hint="leave it out, or start the command by 'ionice -c idle'"
        )
