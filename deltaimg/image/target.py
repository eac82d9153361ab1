# SPDX-License-Identifier: Apache-2.0
"""Where a restore writes to: a new sparse file, a block device, or the standard output.

A file gets its name only once its content is proven: until then it has a temporary name beside it. No symbolic link is
ever followed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import stat
from contextlib import suppress
from typing import Protocol

from deltaimg.arrays import Ranges
from deltaimg.descriptors import write_output
from deltaimg.errors import ImageError, TargetExists, TargetTooSmall, UnsupportedImage
from deltaimg.image.raw import read_device_bytes
from deltaimg.image.source import describe_mode
from deltaimg.kernels import read_ranges, write_ranges

STDOUT = "-"
_PUNCH = 0x01 | 0x02  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
_WRITE_BYTES = 256 * 1024
"""A larger write makes the kernel look for larger folios, which now and then took it eight times as long as the copying."""
_ZERO_BUFFER = bytes(1 << 20)


class Target(Protocol):
    """A place for a restored image. Every method may raise ImageError."""

    @property
    def is_sequential(self) -> bool:
        """Whether it must be written once, front to back."""
        ...

    def write(self, offset: int, data: memoryview) -> None:
        """Put `data` at `offset`; any thread, any order, unless sequential."""
        ...

    def write_ranges(self, ranges: Ranges, data: memoryview) -> None:
        """Put many parts of `data` where they belong; any thread, not if sequential."""
        ...

    @property
    def folder(self) -> str | None:
        """Where what a restore must keep for a while may lie; None if the target has no such place."""
        ...

    def read_back(self, ranges: Ranges, out: memoryview) -> None:
        """Fill parts of `out` with what was written before; any thread, not if sequential."""
        ...

    def clear(self, offset: int, length: int) -> None:
        """Make `length` bytes from `offset` read as zeros, as holes where the target can."""
        ...

    def grow(self, size_bytes: int) -> None:
        """The image turns out to have at least `size_bytes`; for images whose size is known last."""
        ...

    def commit(self) -> None:
        """The image is complete and proven: give it its name."""
        ...

    def abort(self) -> None:
        """Leave nothing behind that could be taken for an image."""
        ...


def open_target(path: str, size_bytes: int, *, is_forced: bool = False, is_synced: bool = False) -> Target:
    """Open the place that `path` names for an image of `size_bytes`, `-` being the standard output.

    Args:
        is_forced: replace an existing file, write to a block device.
        is_synced: wait at the end until the image is on the disk; always so for a device, and where a file is replaced.

    Raises:
        TargetExists: something is there and `is_forced` is not set, or it is a symbolic link.
        TargetTooSmall: a block device or file system smaller than the image. ImageError: it cannot be written.
    """
    if path == STDOUT:
        return StreamTarget(1)
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return FileTarget(path, size_bytes, is_replacing=False, is_synced=is_synced)
    except OSError as error:
        raise ImageError(path, f"cannot be written: {os.strerror(error.errno or 0)}") from error
    except ValueError as error:
        raise ImageError(path, "is no possible path") from error
    if stat.S_ISLNK(mode):
        raise TargetExists(path, "is a symbolic link, which is never followed", hint="name what it points to")
    if stat.S_ISBLK(mode):
        if not is_forced:
            raise TargetExists(path, "is a block device", hint="--force overwrites it")
        return DeviceTarget(path, size_bytes)
    if not stat.S_ISREG(mode):
        raise UnsupportedImage(path, f"is {describe_mode(mode)}, not a place for a new file")
    if not is_forced:
        raise TargetExists(path, "exists", hint="--force replaces it, in one step, once all is written")
    return FileTarget(path, size_bytes, is_replacing=True, is_synced=True)


class _DescriptorTarget:
    """What files and devices have in common: writing at offsets through a descriptor."""

    is_sequential = False
    folder: str | None = None

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def read_back(self, ranges: Ranges, out: memoryview) -> None:
        failed = read_ranges(self._descriptor, ranges, out)
        if failed is not None:
            why = os.strerror(failed.error_number) if failed.error_number else "it ends early, though more was written"
            raise ImageError(self.path, f"cannot be read at byte {ranges['offset'][failed.number]}: {why}")

    def write_ranges(self, ranges: Ranges, data: memoryview) -> None:
        failed = write_ranges(self._descriptor, ranges, data, _WRITE_BYTES)
        if failed is not None:
            raise write_failure(self.path, int(ranges["offset"][failed.number]), OSError(failed.error_number, ""))

    def write(self, offset: int, data: memoryview) -> None:
        try:
            while len(data):
                written = os.pwrite(self._descriptor, data[:_WRITE_BYTES], offset)
                data, offset = data[written:], offset + written
        except OSError as error:
            raise write_failure(self.path, offset, error) from error

    def _close(self) -> None:
        """Close the descriptor, once: its number may be somebody else's afterwards."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class FileTarget(_DescriptorTarget):
    """A new sparse file; what is never written stays a hole."""

    def __init__(self, path: str, size_bytes: int, *, is_replacing: bool, is_synced: bool) -> None:
        self._is_replacing, self._is_synced = is_replacing, is_synced
        self.folder = os.path.dirname(path) or os.curdir
        self._temporary = f"{path}.{secrets.token_hex(4)}.partial"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            super().__init__(path, os.open(self._temporary, flags, 0o600))
        except OSError as error:
            raise ImageError(path, f"cannot be written: {os.strerror(error.errno or 0)}") from error
        try:
            os.ftruncate(self._descriptor, size_bytes)
        except OSError as error:
            self.abort()
            if error.errno in (errno.EFBIG, errno.EINVAL, errno.ENOSPC):
                raise TargetTooSmall(path, f"its file system cannot hold a file of {size_bytes} bytes") from error
            raise ImageError(path, f"cannot be written: {os.strerror(error.errno or 0)}") from error

    def clear(self, offset: int, length: int) -> None:
        """Nothing to do: the file is new."""

    def grow(self, size_bytes: int) -> None:
        try:
            if os.fstat(self._descriptor).st_size < size_bytes:
                os.ftruncate(self._descriptor, size_bytes)
        except OSError as error:
            raise TargetTooSmall(self.path, f"its file system cannot hold a file of {size_bytes} bytes") from error

    def commit(self) -> None:
        try:
            if self._is_synced:
                os.fsync(self._descriptor)
            if self._is_replacing:
                os.rename(self._temporary, self.path)
            else:
                self._rename_new()
            if self._is_synced:
                _sync_folder(os.path.dirname(os.path.abspath(self.path)))
            self._close()
        except FileExistsError as error:
            self.abort()
            raise TargetExists(self.path, "appeared in the meantime") from error
        except OSError as error:
            self.abort()
            raise write_failure(self.path, 0, error) from error

    def abort(self) -> None:
        with suppress(OSError):
            self._close()
        with suppress(OSError):
            os.unlink(self._temporary)

    def _rename_new(self) -> None:
        """Rename to a name that must not exist: by link() where the file system has it, which cannot overwrite."""
        try:
            os.link(self._temporary, self.path, follow_symlinks=False)
        except FileExistsError:
            raise
        except OSError:
            if os.path.lexists(self.path):
                raise FileExistsError(errno.EEXIST, "exists", self.path) from None
            os.rename(self._temporary, self.path)
        else:
            os.unlink(self._temporary)


class DeviceTarget(_DescriptorTarget):
    """A block device at least as large as the image; its old content is gone where the image has holes, too."""

    def __init__(self, path: str, size_bytes: int) -> None:
        try:
            # O_EXCL on a device fails while it is mounted or otherwise held by the kernel.
            descriptor = os.open(path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            hint = "is it mounted?" if error.errno == errno.EBUSY else None
            raise ImageError(path, f"cannot be written: {os.strerror(error.errno or 0)}", hint=hint) from error
        super().__init__(path, descriptor)
        device_bytes = read_device_bytes(descriptor)
        if device_bytes < size_bytes:
            os.close(descriptor)
            raise TargetTooSmall(path, f"has {device_bytes} bytes; the image needs {size_bytes}")
        self._can_punch = True
        self._device_bytes = device_bytes

    def grow(self, size_bytes: int) -> None:
        if size_bytes > self._device_bytes:
            raise TargetTooSmall(self.path, f"has {self._device_bytes} bytes; the image needs {size_bytes} or more")

    def clear(self, offset: int, length: int) -> None:
        if self._can_punch and _punch(self._descriptor, offset, length):
            return
        self._can_punch = False
        for start in range(offset, offset + length, len(_ZERO_BUFFER)):
            self.write(start, memoryview(_ZERO_BUFFER)[: offset + length - start])

    def commit(self) -> None:
        try:
            os.fsync(self._descriptor)
            self._close()
        except OSError as error:
            raise write_failure(self.path, 0, error) from error

    def abort(self) -> None:
        with suppress(OSError):
            self._close()


class StreamTarget:
    """The standard output."""

    is_sequential = True
    folder: str | None = None

    def __init__(self, descriptor: int) -> None:
        self.path = STDOUT
        self._descriptor = descriptor
        if os.isatty(descriptor):
            raise UnsupportedImage(self.path, "the standard output is a terminal", hint="send it to a file or a pipe")

    def write(self, offset: int, data: memoryview) -> None:  # noqa: ARG002
        write_output(data, self._descriptor)

    def write_ranges(self, ranges: Ranges, data: memoryview) -> None:
        raise ImageError(self.path, f"a stream is written in order, not {len(data)} bytes in {len(ranges)} ranges")

    def read_back(self, ranges: Ranges, out: memoryview) -> None:
        raise ImageError(self.path, f"a stream cannot be read again: {len(out)} bytes in {len(ranges)} ranges")

    def clear(self, offset: int, length: int) -> None:
        for start in range(offset, offset + length, len(_ZERO_BUFFER)):
            self.write(start, memoryview(_ZERO_BUFFER)[: offset + length - start])

    def grow(self, size_bytes: int) -> None:
        """A stream ends where it ends."""

    def commit(self) -> None:
        """Nothing to name."""

    def abort(self) -> None:
        """What is written is written; the exit code says that it is not all."""


def write_failure(path: str, offset: int, error: OSError) -> ImageError:
    """Return the error for a write to a target that failed."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return TargetTooSmall(path, f"no space left when writing at byte {offset}", hint="make room and run again")
    return ImageError(path, f"cannot be written at byte {offset}: {os.strerror(error.errno or 0)}")


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _punch(descriptor: int, offset: int, length: int) -> bool:
    """Deallocate a range; False where the device cannot. Python's os has no call for it."""
    fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return bool(fallocate(descriptor, _PUNCH, offset, length) == 0)
