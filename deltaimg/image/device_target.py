# SPDX-License-Identifier: Apache-2.0
"""A block device as a target. It is opened exclusively, so that a device that is mounted or in use is never written to."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from contextlib import suppress

from deltaimg.errors import ImageError, ImageInUse, TargetTooSmall, UnsupportedImage
from deltaimg.image.allocation import punch_hole
from deltaimg.image.block_devices import read_device_bytes
from deltaimg.image.descriptor_target import DescriptorTarget, describe_write_failure
from deltaimg.image.uses import find_uses
from deltaimg.model import Extent

_ZERO_BUFFER = bytes(1 << 20)


class DeviceTarget(DescriptorTarget):
    """A block device at least as large as the image; its old content is gone where the image has holes, too."""

    def __init__(self, path: str, size_bytes: int) -> None:
        super().__init__(path, _open_exclusively(path))
        self._can_punch = True
        try:
            self._device_bytes = read_device_bytes(self._descriptor)
            self.grow(size_bytes)
        except OSError as error:
            self.abort()
            raise ImageError(path, f"cannot be written: {os.strerror(error.errno or 0)}") from error
        except BaseException:
            self.abort()
            raise

    @property
    def device_bytes(self) -> int | None:
        """The size of the device."""
        return self._device_bytes

    def find_free_bytes(self) -> int | None:
        """Return None: its size was compared with the image's when it was opened."""
        return None

    def grow(self, size_bytes: int) -> None:
        """Raise TargetTooSmall if the device has fewer than `size_bytes`."""
        if size_bytes > self._device_bytes:
            raise TargetTooSmall(self.path, f"has {self._device_bytes} bytes; the image needs {size_bytes} at least")

    def clear(self, offset: int, length: int) -> None:
        """Deallocate a stretch, or write zeros where the device cannot; raises ImageError."""
        if self._can_punch and punch_hole(self._descriptor, offset, length):
            return
        self._can_punch = False
        for start in range(offset, offset + length, len(_ZERO_BUFFER)):
            self.write(start, memoryview(_ZERO_BUFFER)[: offset + length - start])

    def reserve(self, extents: Iterable[Extent]) -> None:
        """Nothing to do: a device has its blocks."""

    def commit(self) -> None:
        """Wait until all is on the disk, and close it; raises ImageError."""
        try:
            os.fsync(self._descriptor)
            self._close()
        except OSError as error:
            raise describe_write_failure(self.path, None, error) from error

    def abort(self) -> None:
        """Close it; what was written stays."""
        with suppress(OSError):
            self._close()

    def _close(self) -> None:
        """Close the descriptor, once: its number may be used again afterwards."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _open_exclusively(path: str) -> int:
    """Open a device so that it cannot be mounted meanwhile; raises ImageError."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise ImageInUse(path, _describe_use(path), hint="unmount or stop what uses it first") from error
        raise ImageError(path, f"cannot be written: {os.strerror(error.errno or 0)}") from error
    if stat.S_ISBLK(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise UnsupportedImage(path, "was a block device, and is something else now")


def _describe_use(path: str) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return "is in use"
    try:
        return "is " + ", and ".join(use.text for use in find_uses(descriptor)[:2]) or "in use"
    finally:
        os.close(descriptor)
