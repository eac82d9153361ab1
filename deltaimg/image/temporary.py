# SPDX-License-Identifier: Apache-2.0
"""A file that gets its name only once it is complete.

Until then it has none (O_TMPFILE), so that nothing is left of a process that was killed. Where the file system cannot do that,
and for the moment in which another file is replaced, it has the name `NAME.HOST-RANDOM.partial` and is locked (flock) as long
as its process lives: the next run that writes to the same place removes those of its host that are not locked.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import secrets
import socket
from contextlib import suppress

_NO_UNNAMED_FILES = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)
_FLAGS = os.O_RDWR | os.O_CLOEXEC
_PARTIAL = "{name}.{host}-{random}.partial"


class TemporaryFile:
    """A new, empty file in the folder of `path`. Callers write to its descriptor, which `close` closes."""

    def __init__(self, path: str, mode: int) -> None:
        """Args: mode: of which the umask takes away, as for any new file. Raises OSError."""
        self.folder = os.path.dirname(path) or os.curdir
        self._name = os.path.basename(path)
        self._folder = os.open(self.folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._partial: str | None = None
        """Its temporary name, if it has one."""
        try:
            self._remove_leftovers()
            self.descriptor = self._open_unnamed(mode)
            if self.descriptor < 0:
                self.descriptor = self._open_named(mode)
        except BaseException:
            os.close(self._folder)
            raise

    def publish(self) -> None:
        """Give it its name, which nothing may have: raises FileExistsError, or OSError."""
        try:
            self._link(self._name)
        except FileExistsError:
            raise
        except OSError:
            # A file system without hard links. There is no way to rename without overwriting on all of them.
            if self._partial is None:
                raise
            if os.path.lexists(os.path.join(self.folder, self._name)):
                raise FileExistsError(errno.EEXIST, "exists", self._name) from None
            self._rename(self._partial)
        else:
            self._unlink_partial()

    def replace(self) -> None:
        """Give it its name in one step, whatever has it; raises OSError."""
        if self._partial is None:
            partial = self._choose_partial()
            _lock(self.descriptor)
            self._link(partial)
            self._partial = partial
        self._rename(self._partial)

    def close(self) -> None:
        """Close the descriptor, and leave nothing of a file that got no name. Does nothing the second time."""
        descriptor, self.descriptor = self.descriptor, -1
        folder, self._folder = self._folder, -1
        if descriptor < 0:
            return
        self._folder = folder
        self._unlink_partial()
        self._folder = -1
        os.close(folder)
        os.close(descriptor)

    # -- parts -------------------------------------------------------------------------------------------------------

    def _open_unnamed(self, mode: int) -> int:
        """Return a descriptor, or -1 where the file system has no files without a name or this one could not get one."""
        try:
            descriptor = os.open(".", _FLAGS | os.O_TMPFILE, mode, dir_fd=self._folder)
        except OSError as error:
            if error.errno in _NO_UNNAMED_FILES:
                return -1
            raise
        if os.path.exists(f"/proc/self/fd/{descriptor}"):
            return descriptor
        os.close(descriptor)
        return -1

    def _open_named(self, mode: int) -> int:
        while True:
            partial = self._choose_partial()
            descriptor = os.open(partial, _FLAGS | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode, dir_fd=self._folder)
            # Between the two calls another run may have taken it for a leftover.
            if _lock(descriptor) and os.fstat(descriptor).st_nlink:
                self._partial = partial
                return descriptor
            os.close(descriptor)

    def _choose_partial(self) -> str:
        return _PARTIAL.format(name=self._name, host=_name_host(), random=secrets.token_hex(4))

    def _link(self, name: str) -> None:
        source = f"/proc/self/fd/{self.descriptor}" if self._partial is None else self._partial
        os.link(
            source,
            name,
            src_dir_fd=self._folder,
            dst_dir_fd=self._folder,
            follow_symlinks=self._partial is None,
        )

    def _rename(self, partial: str) -> None:
        os.rename(partial, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        self._partial = None

    def _unlink_partial(self) -> None:
        if self._partial is not None:
            with suppress(OSError):
                os.unlink(self._partial, dir_fd=self._folder)
            self._partial = None

    def _remove_leftovers(self) -> None:
        """Remove temporary files of the same file that dead processes of this host left."""
        pattern = re.compile(
            _PARTIAL.format(name=re.escape(self._name), host=_name_host(), random="[0-9a-f]{8}"), re.DOTALL
        )
        with suppress(OSError):
            for name in os.listdir(self.folder):
                if pattern.fullmatch(name):
                    self._remove_leftover(name)

    def _remove_leftover(self, name: str) -> None:
        with suppress(OSError):
            descriptor = os.open(name, _FLAGS | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=self._folder)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(name, dir_fd=self._folder)
            finally:
                os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Lock a file of this process; False where another one holds it. Without locks no leftover is ever removed."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _name_host() -> str:
    """Return a name for this host, which its files in a shared folder carry; locks of other hosts may be invisible."""
    return hashlib.blake2b(socket.gethostname().encode(errors="surrogateescape"), digest_size=4).hexdigest()
