# SPDX-License-Identifier: Apache-2.0
"""Where a copy is, and the folder with what is kept of it.

    /path/copy.img                  the copy
    /path/.copy.img.mirror/state    the digests of what it holds
                           journal  what undoes the run that is under way, of a copy that is changed in place
                           new      the copy that is being made, which gets the copy's name when it is complete
                           lock     locked (flock) by the process that writes to the copy

Of a block device the folder is `$XDG_STATE_HOME/deltaimg/mirror/<its name>`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from msgspec import Struct

from deltaimg.errors import ImageError, IntegrityError, MirrorBusy, TargetExists, UnsupportedFormat, UnsupportedImage
from deltaimg.format.mirror import MirrorState, build_state, parse_state
from deltaimg.image.descriptor_target import describe_write_failure, hint_at_room, name_shortage
from deltaimg.image.repository_files import refuse_in_repository
from deltaimg.posix import describe_mode, sync_folder
from deltaimg.repo.host_files import find_folder


class CopyPlace(Struct, frozen=True):
    """The path of a copy, and the paths beside it."""

    path: str
    folder: str
    is_device: bool
    exists: bool

    @property
    def state_path(self) -> str:
        """The digests of what the copy holds."""
        return os.path.join(self.folder, "state")

    @property
    def journal_path(self) -> str:
        """What undoes a run."""
        return os.path.join(self.folder, "journal")

    @property
    def new_path(self) -> str:
        """A copy that is being made."""
        return os.path.join(self.folder, "new")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only process that writes to the copy; raises MirrorBusy or ImageError."""
        try:
            if self.is_device:
                os.makedirs(os.path.dirname(self.folder), 0o700, exist_ok=True)
            with suppress(FileExistsError):
                os.mkdir(self.folder, 0o700)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(os.path.join(self.folder, "lock"), flags, 0o600)
        except OSError as error:
            problem = f"{self.folder} cannot be used: {os.strerror(error.errno or 0)}"
            raise ImageError(self.path, problem, hint=self._hint_at_folder(error)) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as error:
            raise MirrorBusy(f"{self.path}: another mirror is writing to it") from error
        finally:
            os.close(descriptor)

    def _hint_at_folder(self, error: OSError) -> str | None:
        """Return what to do about the folder that `error` is about: without one no run that is cut can be undone."""
        if name_shortage(error.errno) is not None:
            return hint_at_room(error.errno)
        if os.path.lexists(self.folder) and not os.path.isdir(self.folder):
            return "it is to be a folder for what is known of the copy: move what has its name elsewhere"
        parent = os.path.dirname(self.folder)
        if error.errno == errno.EROFS:
            return f"mount the file system of {parent} for writing"
        if not os.path.isdir(parent):
            return f"make the folder {parent} first, or look whether its disk is mounted"
        return f"a folder for what is known of the copy is needed there: let this user write to {parent}"

    def read_state(self) -> MirrorState | None:
        """Return what an earlier run kept; None where there is nothing, or it is damaged: then the copy is read."""
        return read_state(self.state_path)

    @property
    def is_known(self) -> bool:
        """Whether a run has written to the copy before, or has begun to make it."""
        return any(map(os.path.lexists, (self.state_path, self.journal_path, self.new_path)))

    def void_state(self) -> None:
        """Let the next run read the copy; raises OSError."""
        with suppress(FileNotFoundError):
            os.truncate(self.state_path, 0)

    def write_state(self, state: MirrorState) -> None:
        """Keep the state, in one step; on the disk afterwards. Raises ImageError."""
        write_state(self.state_path, state)


def find_copy_place(path: str) -> CopyPlace:
    """Return where a copy is, or will be; raises ImageError, UnsupportedImage, TargetExists, or UsageError in a repository."""
    if not path or "\0" in path or path.endswith("/"):
        raise ImageError(path, "is not a possible path of a copy", hint="name the file: /path/copy.img")
    try:
        mode = os.lstat(path).st_mode
        if stat.S_ISLNK(mode):
            mode = os.stat(path).st_mode
            if not stat.S_ISBLK(mode):
                raise TargetExists(path, "is a symbolic link", hint="name the file that it leads to")
    except FileNotFoundError:
        if os.path.islink(path):
            hint = f"mount what it leads to, or remove it: {os.path.realpath(path)} is not there"
            raise TargetExists(path, "is a symbolic link that leads nowhere", hint=hint) from None
        refuse_in_repository(path)
        return CopyPlace(path, _name_folder(path), is_device=False, exists=False)
    except OSError as error:
        raise ImageError(path, f"cannot be written: {os.strerror(error.errno or 0)}") from error
    if stat.S_ISBLK(mode):
        real = os.path.realpath(path)
        return CopyPlace(
            path, os.path.join(_find_state_home(path), real.strip("/").replace("/", "-")), True, exists=True
        )
    if not stat.S_ISREG(mode):
        hint = f"name the file in it: {os.path.join(path, 'NAME')}" if stat.S_ISDIR(mode) else "name another place"
        raise UnsupportedImage(path, f"is {describe_mode(mode)}, not a place for a copy", hint=hint)
    refuse_in_repository(path)
    return CopyPlace(path, _name_folder(path), is_device=False, exists=True)


def read_state(path: str) -> MirrorState | None:
    """Return a state that is whole, else None."""
    try:
        with open(path, "rb") as file:
            return parse_state(path, file)
    except (OSError, IntegrityError, UnsupportedFormat):
        return None


def write_state(path: str, state: MirrorState) -> None:
    """Write a state, which replaces the one before in one step; raises ImageError."""
    partial = f"{path}.new"
    try:
        with suppress(FileNotFoundError):
            os.unlink(partial)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.writelines(build_state(state))
            file.flush()
            os.fsync(file.fileno())
        os.rename(partial, path)
        sync_folder(os.path.dirname(path))
    except OSError as error:
        raise describe_write_failure(path, None, error) from error


def _name_folder(path: str) -> str:
    folder, name = os.path.split(os.path.abspath(path))
    return os.path.join(folder, f".{name}.mirror")


def _find_state_home(path: str) -> str:
    folder = find_folder()
    if not os.path.isabs(folder):
        raise ImageError(path, "a device needs a folder for its journal", hint="set XDG_STATE_HOME to one")
    return os.path.join(folder, "mirror")
