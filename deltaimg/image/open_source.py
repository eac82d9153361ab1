# SPDX-License-Identifier: Apache-2.0
"""From a path or an address to an image source: a file, flat or not, a device, a stream, an NBD export, an image of Ceph.

What reads a kind of source that needs a server or a library is imported when one is opened: flat files start without it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

from deltaimg.descriptors import find_descriptor, is_standard_stream
from deltaimg.errors import ImageError, UnsupportedImage, UsageError
from deltaimg.image.nbd.address import is_nbd_address, parse_nbd_address
from deltaimg.image.qemu.address import is_monitor_address
from deltaimg.image.qemu.formats import FLAT, choose_driver
from deltaimg.image.raw import BlockDeviceSource, RawSource
from deltaimg.image.rbd.address import is_rbd_address, parse_rbd_address
from deltaimg.image.source import ImageSource
from deltaimg.image.stream import StreamSource
from deltaimg.posix import describe_mode

STREAM = "-"


def open_source(
    path: str,
    *,
    name: str | None = None,
    format: str = FLAT,  # noqa: A002  as the option
    bitmaps: Sequence[str] = (),
    use_holes: bool = True,
    is_direct: bool = False,
    is_salvaging: bool = False,
) -> ImageSource:
    """Open the image at `path`, `-` being the standard input. A named pipe is a stream, too; `nbd://` names an export.

    `rbd:POOL/IMAGE` names an image of Ceph.

    Args:
        name: what it is called, as in messages and in the manifest, where that is not its path.
        format: of the file: `raw`, as it is; `auto`, by its name; or what qemu calls it. See `qemu.formats`.
        bitmaps: dirty bitmaps of an export or a qcow2 file to ask for; a flat file has none.
        use_holes: take the holes that the file system reports; otherwise everything is read.
        is_direct: read past the page cache (O_DIRECT).
        is_salvaging: read zeros where a disk cannot be read, and list those extents as `unreadable`.

    Raises:
        ImageError: it cannot be opened. UnsupportedImage: it is a folder, a character device or such.
        UsageError: an address is not valid.
    """
    if is_monitor_address(path):
        raise UsageError(f"{path}: a disk of a running qemu can only be backed up")
    if is_direct and (is_nbd_address(path) or is_rbd_address(path)):
        raise ImageError(name or path, "--direct is for files and devices", hint="run again without --direct")
    if is_rbd_address(path):
        from deltaimg.image.rbd.source import open_rbd_source

        return open_rbd_source(parse_rbd_address(path), name=name, use_holes=use_holes, is_salvaging=is_salvaging)
    if is_nbd_address(path):
        from deltaimg.image.nbd.source import open_export

        return open_export(
            parse_nbd_address(path), name=name, bitmaps=bitmaps, use_holes=use_holes, is_salvaging=is_salvaging
        )
    shown = name or path
    flat = _open_flat(path, shown, use_holes=use_holes, is_direct=is_direct, is_salvaging=is_salvaging)
    try:
        driver = choose_driver(shown, format, flat)
    except BaseException:
        flat.close()
        raise
    if driver is None:
        return flat
    flat.close()
    from deltaimg.image.qemu.source import open_file

    return open_file(
        path, shown, driver, bitmaps=bitmaps, use_holes=use_holes, is_direct=is_direct, is_salvaging=is_salvaging
    )


def _open_flat(path: str, shown: str, *, use_holes: bool, is_direct: bool, is_salvaging: bool) -> ImageSource:
    """Open a file, a device or a stream as it is; raises ImageError."""
    if is_standard_stream(path, 0):
        return StreamSource(0)
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_DIRECT if is_direct else 0)
    try:
        mode = os.stat(path).st_mode
        if is_stream(path, mode):
            return StreamSource(_open_stream(path), shown, is_owned=True)
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            hint = None if find_descriptor(path) is None else "'-' is the standard input"
            raise UnsupportedImage(shown, f"is {describe_mode(mode)}, not a disk image or block device", hint=hint)
        descriptor = os.open(path, flags)
    except OSError as error:
        if is_direct and error.errno == errno.EINVAL:
            raise ImageError(shown, "its file system has no direct I/O", hint="run again without --direct") from error
        raise ImageError(shown, f"cannot be read: {os.strerror(error.errno or 0)}") from error
    except ValueError as error:
        raise ImageError(shown, "is not a possible path") from error
    try:
        if stat.S_ISBLK(mode):
            return BlockDeviceSource(shown, descriptor, is_direct=is_direct, is_salvaging=is_salvaging)
        return RawSource(shown, descriptor, use_holes=use_holes, is_direct=is_direct, is_salvaging=is_salvaging)
    except OSError as error:
        os.close(descriptor)
        raise ImageError(shown, f"cannot be read: {os.strerror(error.errno or 0)}") from error
    except BaseException:
        os.close(descriptor)
        raise


def is_stream(path: str, mode: int) -> bool:
    """Return whether what has this mode can be opened as a stream: a named pipe, or a socket of this process's own."""
    return stat.S_ISFIFO(mode) or (stat.S_ISSOCK(mode) and find_descriptor(path) is not None)


def _open_stream(path: str) -> int:
    """Open a named pipe, which waits until a process opens it for writing; raises OSError."""
    number = find_descriptor(path)
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC) if number is None else os.dup(number)
