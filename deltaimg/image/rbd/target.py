# SPDX-License-Identifier: Apache-2.0
"""An image of Ceph as a target: a new one, or one that exists and is at least as large.

A new one is made as `<image>.deltaimg-partial`, and gets its name once all is written. What a restore that was killed leaves of
that name is removed by the next one. An image that exists is written in place, as a device is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from msgspec.structs import replace

from deltaimg.arrays import Ranges
from deltaimg.errors import ImageError, ImageInUse, TargetExists, TargetTooSmall, UsageError
from deltaimg.image.rbd.address import RbdAddress
from deltaimg.image.rbd.image import (
    RbdImage,
    create_rbd_image,
    open_rbd_image,
    opened_rbd_image,
    remove_rbd_image,
    rename_rbd_image,
)
from deltaimg.image.rbd.library import RbdFailure, RbdNotFound
from deltaimg.image.reader import ReadFailure
from deltaimg.model import Extent

_PARTIAL: Final = ".deltaimg-partial"


class RbdTarget:
    """An image that is written. Any thread may write."""

    is_sequential = False
    folder: str | None = None

    def __init__(self, address: RbdAddress, image: RbdImage, *, is_new: bool) -> None:
        """Args: address: under which it is open. image: closed at the end. Raises RbdFailure."""
        self.path = address.location.removesuffix(_PARTIAL) if is_new else address.location
        self.warnings: list[str] = []
        self.device_bytes: int | None = image.size_bytes
        self._address, self._is_new, self._is_partial = address, is_new, is_new
        self._image: RbdImage | None = image

    def find_free_bytes(self) -> int | None:
        """Return None: what a pool has room for, other images share."""
        return None

    def write(self, offset: int, data: memoryview) -> None:
        """Write `data` at `offset`; raises ImageError."""
        with self._translating():
            self._opened.write(offset, data)

    def write_ranges(self, ranges: Ranges, data: memoryview) -> None:
        """Write the parts of `data` that `ranges` name; raises ImageError."""
        for offset, length, start in ranges.tolist():
            self.write(offset, data[start : start + length])

    def read_back(self, ranges: Ranges, out: memoryview) -> None:
        """Fill the parts of `out` that `ranges` name with what was written before; raises ImageError."""
        with self._translating():
            for offset, length, start in ranges.tolist():
                self._opened.read(offset, out[start : start + length])

    def clear(self, offset: int, length: int) -> None:
        """Make a stretch read as zeros, which all of a new image does; raises ImageError."""
        if not self._is_new:
            with self._translating():
                self._opened.clear(offset, length)

    def reserve(self, extents: Iterable[Extent]) -> None:
        """Nothing to do: a pool makes objects as they are written."""

    def grow(self, size_bytes: int) -> None:
        """Raise TargetTooSmall if the image has fewer than `size_bytes`."""
        if size_bytes > (self.device_bytes or 0):
            raise TargetTooSmall(self.path, f"has {self.device_bytes} bytes; the image needs {size_bytes} at least")

    def commit(self) -> None:
        """Wait until all is durable; a new image gets its name now. Raises ImageError."""
        with self._translating():
            self._opened.flush()
            self._close()
            if self._is_new:
                rename_rbd_image(self._address, self._address.image.removesuffix(_PARTIAL))
        self._is_partial = False

    def abort(self) -> None:
        """Give up; a new image is removed, and of another one what was written stays."""
        self._close()
        if self._is_partial:
            self._is_partial = False
            with suppress(RbdFailure):
                remove_rbd_image(self._address)

    @property
    def _opened(self) -> RbdImage:
        assert self._image is not None
        return self._image

    def _close(self) -> None:
        image, self._image = self._image, None
        if image is not None:
            image.close()

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except RbdFailure as failure:
            raise ImageError(self.path, failure.problem, hint=failure.hint) from failure
        except ReadFailure as failure:
            raise ImageError(self.path, f"cannot be read at byte {failure.offset}") from failure


def open_rbd_target(address: RbdAddress, size_bytes: int, *, is_forced: bool) -> RbdTarget:
    """Open an image to write, and make it where there is none.

    Args:
        is_forced: write to one that exists.

    Raises:
        TargetExists, TargetTooSmall, ImageInUse, ImageError: see `open_target`.
    """
    path = address.location
    if address.snapshot:
        raise UsageError(f"{path}: a snapshot of Ceph cannot be written to", hint="name an image")
    try:
        if _find_use(address):
            if not is_forced:
                raise TargetExists(path, "is an image of Ceph that exists", hint="--force overwrites it")
            return _open(address, size_bytes, is_new=False)
        partial = replace(address, image=address.image + _PARTIAL)
        if _find_use(partial):
            remove_rbd_image(partial)
        create_rbd_image(partial, size_bytes)
        return _open(partial, size_bytes, is_new=True)
    except RbdFailure as failure:
        raise ImageError(path, failure.problem, hint=failure.hint) from failure


def _find_use(address: RbdAddress) -> bool:
    """Return whether there is such an image; raises ImageInUse if something has it open, and RbdFailure."""
    try:
        with opened_rbd_image(address) as image:
            watchers = image.list_watchers()
    except RbdNotFound:
        return False
    if watchers:
        problem = f"is open in another client of Ceph ({', '.join(watchers[:3])})"
        raise ImageInUse(address.location, problem, hint="stop what uses it first")
    return True


def _open(address: RbdAddress, size_bytes: int, *, is_new: bool) -> RbdTarget:
    image = open_rbd_image(address, is_writable=True)
    try:
        target = RbdTarget(address, image, is_new=is_new)
        target.grow(size_bytes)
    except BaseException:
        image.close()
        raise
    return target
