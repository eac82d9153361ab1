# SPDX-License-Identifier: Apache-2.0
"""One mount: from an empty folder until it is unmounted, by whoever does that, or the run is interrupted."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any

from deltaimg.engine.mount.file_system import FileSystem
from deltaimg.engine.mount.opened import OpenedSnapshots
from deltaimg.engine.mount.tree import SnapshotTree
from deltaimg.engine.progress import Progress
from deltaimg.errors import Interrupted, UsageError, describe_installation
from deltaimg.image.repository_files import refuse_in_repository
from deltaimg.repo.repository import Repository
from deltaimg.threads import delaying_interruption, start_thread

_LOOK_S = 0.2
"""How often is looked whether it was unmounted."""
_MOST_SAID = 4096
_PATIENCE_S = 10.0
"""How long a program that has just closed the last file may take."""


def mount(
    repository: Repository,
    folder: str,
    *,
    is_shared: bool = False,
    on_mounted: Callable[[], None] = lambda: None,
    progress: Progress,
) -> None:
    """Show the snapshots of a repository in `folder`, which is empty, until it is unmounted or the run is interrupted.

    Args:
        is_shared: with users other than this one; `/etc/fuse.conf` must allow that to all but root.
        on_mounted: called once they can be seen.

    Raises:
        UsageError: it cannot be mounted there, or what that needs is not installed. StoreError: the repository cannot be
        listed.
    """
    _check_folder(folder)
    refuse_in_repository(folder)
    folder = os.path.abspath(folder)
    fuse = _import_fuse()
    tree, opened = SnapshotTree(repository, progress.warn), OpenedSnapshots(repository)
    tree.find("/")
    files = FileSystem(tree, opened, progress.warn, is_shared=is_shared)
    has_ended = threading.Event()

    def serve() -> None:
        try:
            with suppress(RuntimeError):  # libfuse has written why.
                fuse.FUSE(files, folder, **_choose_options(is_shared=is_shared))
        finally:
            has_ended.set()

    try:
        # A signal is heeded once it is mounted, or cannot be: what is on its way could not be unmounted.
        with delaying_interruption(), _catching_errors() as read_errors:
            start_thread(serve, "deltaimg-mount")
            # Not by the thread itself: Python 3.11 counts it as ended if a signal interrupts waiting for it.
            while not has_ended.is_set() and not files.is_mounted.wait(_LOOK_S):
                pass
            if not files.is_mounted.is_set():
                raise UsageError(f"{folder}: cannot be mounted: {read_errors()}", hint=_find_hint())
        on_mounted()
        while not has_ended.wait(_LOOK_S):
            pass
    except BaseException as error:
        if files.is_mounted.is_set():
            _unmount(folder, has_ended, progress)
            if isinstance(error, Interrupted):
                return
        raise
    finally:
        opened.close_all()


def _check_folder(folder: str) -> None:
    """Raise UsageError unless something can be mounted there without hiding anything."""
    try:
        is_empty = not os.listdir(folder)
    except OSError as error:
        hint = None
        if error.errno == errno.ENOTCONN:
            hint = f"the program that mounted it is gone: '{' '.join(_command_to_unmount(folder))}' cleans that up"
        elif error.errno == errno.ENOENT:
            hint = "make it first"
        raise UsageError(f"{folder}: {os.strerror(error.errno or 0)}", hint=hint) from error
    if not is_empty:
        if os.path.ismount(folder):
            raise UsageError(f"{folder}: something is mounted there already", hint="unmount it, or name another folder")
        raise UsageError(f"{folder}: is not empty", hint="make a folder for it, such as /mnt/snapshots")


def _import_fuse() -> Any:
    """Return mfusepy; raises UsageError."""
    try:
        return import_module("mfusepy")
    except ImportError as error:
        raise UsageError(
            "snapshots are mounted by mfusepy, which is not installed", hint=describe_installation("deltaimg[mount]")
        ) from error
    except OSError as error:
        raise UsageError("snapshots are mounted by FUSE, which is not installed", hint="apt install fuse3") from error


def _choose_options(*, is_shared: bool) -> dict[str, bool | str]:
    """Return the options of fuse(8). What is cached of a file stays right: a snapshot never changes."""
    options: dict[str, bool | str] = {"foreground": True, "ro": True, "fsname": "deltaimg", "kernel_cache": True}
    if is_shared:
        options["allow_other"] = True
    return options


@contextmanager
def _catching_errors() -> Iterator[Callable[[], str]]:
    """Catch what libfuse writes to the standard error while it mounts, and return what reads it.

    It is a part of an error of ours, or of no interest: libfuse 3.14 warns of its own default.
    """
    with tempfile.TemporaryFile() as file:
        stderr = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield lambda: "; ".join(os.pread(file.fileno(), _MOST_SAID, 0).decode(errors="replace").splitlines())
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def _find_hint() -> str | None:
    if not os.path.exists("/dev/fuse"):
        return "there is no /dev/fuse: 'modprobe fuse' makes it, and a container must be given it"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "this user may not open /dev/fuse: 'ls -l /dev/fuse' shows who may; it is usual that all may (mode 666)"
    if os.geteuid() != 0 and _find_helper() is None:
        return "for users other than root, FUSE needs a program of its own: apt install fuse3"
    return None


def _unmount(folder: str, has_ended: threading.Event, progress: Progress) -> None:
    """Unmount what programs may still have open: then it is gone from the folder, and ends once they close it."""
    command = _command_to_unmount(folder)
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        lazily = [*command[:-1], "-l" if command[0] == "umount" else "-z", command[-1]]
        subprocess.run(lazily, capture_output=True, check=False)
        progress.warn(f"{folder} is in use; this ends once it is not, or is interrupted again")
        while not has_ended.wait(_LOOK_S):
            pass
    has_ended.wait(_PATIENCE_S)


def _command_to_unmount(folder: str) -> list[str]:
    helper = _find_helper()
    return ["umount", folder] if helper is None else [helper, "-u", folder]


def _find_helper() -> str | None:
    """Return the program that mounts and unmounts for users other than root."""
    return next(filter(shutil.which, ("fusermount3", "fusermount")), None)
