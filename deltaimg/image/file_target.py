# SPDX-License-Identifier: Apache-2.0
"""A sparse file as a target. It gets its name, and the attributes of an old file of that name, once it is complete."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

from deltaimg.errors import ImageError, TargetExists, TargetTooSmall
from deltaimg.image.allocation import punch_hole, reserve_blocks, reserves_blocks
from deltaimg.image.attributes import copy_attributes, copy_flags
from deltaimg.image.descriptor_target import DescriptorTarget, hint_at_room, name_shortage
from deltaimg.image.temporary import TemporaryFile
from deltaimg.image.uses import check_unused
from deltaimg.model import Extent
from deltaimg.posix import sync_folder

_NEW_MODE = 0o666
_SECRET_MODE = 0o600
"""Of a file that replaces another, until it gets that one's mode: users who cannot read the old file cannot read it."""


class FileTarget(DescriptorTarget):
    """A new sparse file; what is never written stays a hole."""

    device_bytes: int | None = None

    def __init__(self, path: str, size_bytes: int, *, is_replacing: bool, is_synced: bool) -> None:
        self._size_bytes, self._is_replacing, self._is_synced = size_bytes, is_replacing, is_synced
        self._is_reserved = False
        if is_replacing:
            check_unused(path)
        try:
            self._file = TemporaryFile(path, _SECRET_MODE if is_replacing else _NEW_MODE)
        except OSError as error:
            shortage = name_shortage(error.errno)
            if shortage is not None:
                raise TargetTooSmall(path, f"{shortage} for a new file", hint=hint_at_room(error.errno)) from error
            hint = "make its folder first" if isinstance(error, FileNotFoundError) else None
            raise ImageError(path, f"cannot be written: {os.strerror(error.errno or 0)}", hint=hint) from error
        super().__init__(path, self._file.descriptor)
        self.folder = self._file.folder
        try:
            if is_replacing:
                copy_flags(path, self._descriptor)
            os.ftruncate(self._descriptor, size_bytes)
        except OSError as error:
            self.abort()
            if error.errno in (errno.EFBIG, errno.EINVAL, errno.ENOSPC):
                raise self._fail_to_grow(size_bytes) from error
            raise ImageError(path, f"cannot be written: {os.strerror(error.errno or 0)}") from error

    def find_free_bytes(self) -> int | None:
        """Return what is free in the file system for this user, what ext4 reserves for root included for root; None where it
        does not say.
        """
        try:
            found = os.fstatvfs(self._descriptor)
        except OSError:
            return None
        is_all_usable = os.geteuid() == 0 and reserves_blocks(self._descriptor)
        return (found.f_bfree if is_all_usable else found.f_bavail) * found.f_frsize

    def clear(self, offset: int, length: int) -> None:
        """Nothing to do in a new file, unless its blocks were reserved."""
        if self._is_reserved:
            punch_hole(self._descriptor, offset, length)

    def reserve(self, extents: Iterable[Extent]) -> None:
        """Allocate the blocks, where the file system is faster for it; raises TargetTooSmall or ImageError."""
        self._is_reserved = True
        shortage = reserve_blocks(self._descriptor, extents)
        if shortage is not None:
            raise self._fail_for_room("for all that is to be written", shortage)

    def grow(self, size_bytes: int) -> None:
        """Make the file at least `size_bytes` long, the rest a hole; raises TargetTooSmall or ImageError."""
        try:
            if os.fstat(self._descriptor).st_size < size_bytes:
                os.ftruncate(self._descriptor, size_bytes)
        except OSError as error:
            raise self._fail_to_grow(size_bytes) from error

    def commit(self) -> None:
        """Give the file its name and, if it replaces another, that one's attributes; raises TargetExists or ImageError."""
        try:
            if self._is_replacing:
                self._replace()
            else:
                self._publish()
        except FileExistsError as error:
            raise TargetExists(self.path, "appeared in the meantime") from error
        except OSError as error:
            raise self._fail_to_write(None, error) from error
        finally:
            self._file.close()

    def abort(self) -> None:
        """Close the file, which has no name; nothing is left of it."""
        self._file.close()

    def _publish(self) -> None:
        if self._is_synced:
            os.fsync(self._descriptor)
        self._file.publish()
        if self._is_synced:
            sync_folder(self.folder or os.curdir)

    def _replace(self) -> None:
        try:
            lost = copy_attributes(self.path, self._descriptor)
        except FileNotFoundError:
            lost = []
        if lost:
            self.warnings.append(f"{self.path}: the new file could not get {', '.join(lost)} of the old one")
        os.fsync(self._descriptor)
        self._file.replace()
        sync_folder(self.folder or os.curdir)

    def _fail_to_write(self, offset: int | None, error: OSError) -> ImageError:
        if name_shortage(error.errno) is None or not self._is_replacing:
            return super()._fail_to_write(offset, error)
        return self._fail_for_room("for all of it" if offset is None else f"when writing at byte {offset}", error.errno)

    def _fail_for_room(self, when: str, error_number: int | None) -> ImageError:
        shortage = name_shortage(error_number)
        if not self._is_replacing:
            return TargetTooSmall(self.path, f"{shortage} {when}", hint=hint_at_room(error_number))
        old = os.stat(self.path).st_blocks * 512 if os.path.exists(self.path) else 0
        new = os.fstat(self._descriptor).st_blocks * 512
        return TargetTooSmall(
            self.path,
            f"{shortage} {when}: the old file is only replaced once the new one is whole, so both must fit; the old one "
            f"takes {old} bytes, and there was room for {new} of the new one",
            hint="make room; or remove the old file first, which a restore does not need",
        )

    def _fail_to_grow(self, size_bytes: int) -> ImageError:
        return TargetTooSmall(self.path, f"no file of {size_bytes} bytes can be made here")
