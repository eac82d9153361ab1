# SPDX-License-Identifier: Apache-2.0
"""A read-only snapshot of the btrfs subvolume that an image file is in: all files of it at one moment.

It lies in the subvolume's own top folder as `.deltaimg-<process>-<random>`, is read through by the image's path in it, and is
deleted at the end. The name says which process made it, so that the next backup removes those of dead ones. The kernel writes
out the subvolume's waiting data as it makes the snapshot.

Source  include/uapi/linux/btrfs.h: BTRFS_IOC_SNAP_CREATE_V2, BTRFS_IOC_SNAP_DESTROY. Both need root, or a file system that is
        mounted with user_subvol_rm_allowed.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from msgspec import Struct

from deltaimg.errors import FreezeFailed
from deltaimg.file_status import read_file_system
from deltaimg.freeze.interface import FreezeRequest, Held, Unfrozen
from deltaimg.freeze.methods import BTRFS
from deltaimg.freeze.owner import PREFIX, is_left_over, name_owner

_SNAP_CREATE_V2, _SNAP_DESTROY = 0x50009417, 0x5000940F
_ARGUMENTS, _ARGUMENTS_V2 = struct.Struct("=q4088s"), struct.Struct("=qQQ32x4040s")
_READ_ONLY = 1 << 1
_TOP_INODE = 256
"""The inode number of every subvolume's top folder, and of nothing else (BTRFS_FIRST_FREE_OBJECTID)."""
_SUPER_MAGIC = 0x9123683E


class BtrfsFreezer:
    """Makes a snapshot of the subvolume."""

    name = BTRFS

    def remove_leftovers(self, paths: Sequence[str]) -> list[str]:
        """Delete the snapshots of dead processes in the subvolumes of images."""
        folders, removed = set(), []
        for path in paths:
            with suppress(FreezeFailed):
                folders.add(_find_subvolume(path).folder)
        for folder in sorted(folders):
            with suppress(OSError):
                for name in os.listdir(folder):
                    if name.startswith(f".{PREFIX}") and is_left_over(name[1:]) and _is_subvolume(folder, name):
                        with suppress(OSError):
                            _delete_snapshot(folder, name)
                            removed.append(os.path.join(folder, name))
        return removed

    def check(self, request: FreezeRequest) -> None:
        """Find the subvolume; only root is sure to be allowed a snapshot of it."""
        _find_subvolume(request.path)
        if os.geteuid() != 0:
            raise FreezeFailed(request.path, "a snapshot of its subvolume needs root")

    @contextmanager
    def hold(self, request: FreezeRequest) -> Iterator[Held]:
        """Snapshot the subvolume; the snapshot is deleted at the end."""
        place = _find_subvolume(request.path)
        name = f".{name_owner()}-{secrets.token_hex(4)}"
        try:
            try:
                _make_snapshot(place.folder, name)
            except OSError as error:
                problem = f"no snapshot of subvolume {place.folder} can be made: {os.strerror(error.errno or 0)}"
                raise FreezeFailed(request.path, problem) from error
            yield Unfrozen(os.path.join(place.folder, name, place.image))
        finally:
            # One that could not be deleted is found by the next backup.
            with suppress(OSError):
                _delete_snapshot(place.folder, name)


class _Place(Struct, frozen=True):
    folder: str
    """The top folder of a subvolume."""
    image: str
    """The path of the image in it."""


def _find_subvolume(path: str) -> _Place:
    """Return where in which subvolume a file is; raises FreezeFailed."""
    real = os.path.realpath(path)
    try:
        if not stat.S_ISREG(os.stat(real).st_mode) or read_file_system(real) != _SUPER_MAGIC:
            raise FreezeFailed(path, "is not a file on btrfs")
        device = os.stat(real).st_dev
        folder = os.path.dirname(real)
        while os.stat(folder).st_ino != _TOP_INODE or os.stat(folder).st_dev != device:
            parent = os.path.dirname(folder)
            if parent == folder or os.stat(parent).st_dev != device:
                # A bind mount of a folder: what it is a part of cannot be reached through it.
                raise FreezeFailed(path, "the top folder of its subvolume is not reachable")
            folder = parent
    except OSError as error:
        raise FreezeFailed(path, f"cannot be examined: {os.strerror(error.errno or 0)}") from error
    return _Place(folder, os.path.relpath(real, folder))


def _is_subvolume(folder: str, name: str) -> bool:
    return os.lstat(os.path.join(folder, name)).st_ino == _TOP_INODE


def _make_snapshot(folder: str, name: str) -> None:
    """Make a read-only snapshot of a subvolume in itself; raises OSError."""
    with _open_folder(folder) as descriptor:
        arguments = _ARGUMENTS_V2.pack(descriptor, 0, _READ_ONLY, os.fsencode(name))
        fcntl.ioctl(descriptor, _SNAP_CREATE_V2, bytearray(arguments), True)


def _delete_snapshot(folder: str, name: str) -> None:
    """Raises OSError; FileNotFoundError where there is none."""
    with _open_folder(folder) as descriptor:
        fcntl.ioctl(descriptor, _SNAP_DESTROY, bytearray(_ARGUMENTS.pack(0, os.fsencode(name))), True)


@contextmanager
def _open_folder(folder: str) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
