# SPDX-License-Identifier: Apache-2.0
"""From a path to an image target: a new file, a block device, a stream, an image of Ceph.

A symbolic link is followed to a block device, since /dev/vg0/vm1 is one, and to a stream, since /dev/stdout is one; never to a
file.
"""

from __future__ import annotations

import os
import stat

from deltaimg.descriptors import find_descriptor, is_standard_stream
from deltaimg.errors import ImageError, TargetExists, UnsupportedImage
from deltaimg.image.device_target import DeviceTarget
from deltaimg.image.file_target import FileTarget
from deltaimg.image.open_source import is_stream
from deltaimg.image.rbd.address import is_rbd_address, parse_rbd_address
from deltaimg.image.rbd.target import open_rbd_target
from deltaimg.image.repository_files import refuse_in_repository
from deltaimg.image.stream_target import StreamTarget, open_stream_target
from deltaimg.image.target import ImageTarget
from deltaimg.posix import describe_mode

STDOUT = "-"


def open_target(path: str, size_bytes: int, *, is_forced: bool = False, is_synced: bool = False) -> ImageTarget:
    """Open the place that `path` names for an image of `size_bytes`, `-` being the standard output.

    Args:
        is_forced: replace an existing file, write to a block device or to an image of Ceph that exists.
        is_synced: wait at the end until the image is on the disk; always so for a device, and where a file is replaced.

    Raises:
        TargetExists: something is there and `is_forced` is not set, or it is a symbolic link to a file.
        TargetTooSmall: a block device or file system smaller than the image. ImageInUse: something else uses it.
        UsageError: a file in a repository. ImageError: it cannot be written.
    """
    if is_standard_stream(path, 1):
        return StreamTarget(1)
    if is_rbd_address(path):
        return open_rbd_target(parse_rbd_address(path), size_bytes, is_forced=is_forced)
    try:
        is_link = stat.S_ISLNK(os.lstat(path).st_mode)
        mode = os.stat(path).st_mode if is_link else os.lstat(path).st_mode
    except FileNotFoundError:
        _refuse_link(path)
        refuse_in_repository(path)
        return FileTarget(path, size_bytes, is_replacing=False, is_synced=is_synced)
    except OSError as error:
        _refuse_link(path)
        raise ImageError(path, f"cannot be written: {os.strerror(error.errno or 0)}") from error
    except ValueError as error:
        raise ImageError(path, "is not a possible path") from error
    if stat.S_ISBLK(mode):
        if not is_forced:
            raise TargetExists(path, "is a block device", hint="--force overwrites it")
        return DeviceTarget(path, size_bytes)
    if is_stream(path, mode):
        return open_stream_target(path)
    _refuse_link(path)
    if not stat.S_ISREG(mode):
        hint = f"name the file in it: {os.path.join(path, 'NAME')}" if stat.S_ISDIR(mode) else None
        raise UnsupportedImage(path, f"is {describe_mode(mode)}, not a place for a new file", hint=hint)
    refuse_in_repository(path)
    if not is_forced:
        raise TargetExists(path, "exists", hint="--force replaces it, in one step, once all is written")
    return FileTarget(path, size_bytes, is_replacing=True, is_synced=True)


def _refuse_link(path: str) -> None:
    """Raise TargetExists for a symbolic link: who may make links in a folder would choose what is overwritten."""
    if os.path.islink(path):
        is_descriptor = find_descriptor(path) is not None
        hint = "'-' is the standard output" if is_descriptor else f"name what it points to: {os.path.realpath(path)}"
        raise TargetExists(path, "is a symbolic link, which is followed only to a block device", hint=hint)
