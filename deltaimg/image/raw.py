# SPDX-License-Identifier: Apache-2.0
"""Flat files and block devices as sources."""

from __future__ import annotations

import array
import errno
import mmap
import os
from contextlib import suppress

import numpy as np

from deltaimg.arrays import Ranges
from deltaimg.errors import ImageError, SourceChanged, UnsupportedImage
from deltaimg.file_status import read_file_status
from deltaimg.format.limits import MAX_UNREADABLE_EXTENTS
from deltaimg.image.block_devices import read_device_bytes, read_sector_bytes
from deltaimg.image.cached_reader import CachedReader
from deltaimg.image.direct_reader import USUAL_ALIGNMENT, DirectReader
from deltaimg.image.extents import DATA, HOLE, Extents
from deltaimg.image.reader import Reader, ReadFailure
from deltaimg.image.salvage_reader import SalvageReader, TooMuchUnreadable, describe_loss, hint_at_salvage
from deltaimg.image.uses import find_writer
from deltaimg.image.write_watch import DeviceWatch, FileWatch, WriteWatch
from deltaimg.model import MAX_IMAGE_BYTES, Extent


class RawSource:
    """A regular file."""

    is_sequential = False
    is_device = False

    def __init__(
        self,
        path: str,
        descriptor: int,
        *,
        use_holes: bool = True,
        is_direct: bool = False,
        is_salvaging: bool = False,
    ) -> None:
        """Raises OSError or ImageError; the descriptor is closed by `close` only."""
        self.path = path
        self._descriptor = descriptor
        self._use_holes = use_holes
        size_bytes = self._find_size()
        if size_bytes > MAX_IMAGE_BYTES:
            raise UnsupportedImage(path, f"is larger than {MAX_IMAGE_BYTES} bytes")
        self.size_bytes: int | None = size_bytes
        self._watch = self._make_watch(size_bytes)
        self._direct_descriptor = -1
        alignment = self._find_alignment()
        self._reader: Reader = (
            DirectReader(descriptor, max(USUAL_ALIGNMENT, alignment)) if is_direct else self._make_reader(alignment)
        )
        self._salvage = self._make_salvage_reader(self._reader, size_bytes) if is_salvaging else None
        self._reader = self._salvage or self._reader

    def extents(self) -> Extents:
        """Return data and holes as the file system reports them now; all data where it reports none.

        Raises:
            SourceChanged: it has become shorter. ImageError: it cannot be searched for holes.
        """
        size = self.size_bytes or 0
        if not self._use_holes:
            return Extents.uniform(size)
        data = array.array("q")
        position = 0
        while position < size:
            try:
                start = os.lseek(self._descriptor, position, os.SEEK_DATA)
                end = min(os.lseek(self._descriptor, start, os.SEEK_HOLE), size)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    break
                if error.errno in (errno.EINVAL, errno.EOPNOTSUPP) and position == 0:
                    return Extents.uniform(size)
                raise self._failure("cannot be searched for holes", error.errno) from error
            if end <= start:
                break
            data.extend((start, end))
            position = end
        if self._find_size() < size:
            raise SourceChanged(self.path, f"has {self._find_size()} bytes, fewer than when it was opened")
        bounds = np.array(data, np.int64).reshape(-1, 2)
        return Extents.from_bounds(bounds, size, inside=DATA, outside=HOLE)

    @property
    def unreadable(self) -> tuple[Extent, ...]:
        """What a salvaging source could not read so far; empty for others."""
        return self._salvage.unreadable if self._salvage else ()

    def peek(self, length: int) -> bytes:
        """Return the first bytes."""
        memory = memoryview(mmap.mmap(-1, length))
        return bytes(memory[: self.read_into(0, memory)])

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill `buffer` from `offset`, any thread; raises ImageError, naming the byte that cannot be read."""
        try:
            return self._reader.read_into(offset, buffer)
        except (ReadFailure, TooMuchUnreadable) as failure:
            raise self._describe(failure) from failure

    def reread(self, ranges: Ranges, out: memoryview) -> None:
        """Fill parts of `out` again, any thread; raises ImageError."""
        try:
            self._reader.reread(ranges, out)
        except (ReadFailure, TooMuchUnreadable) as failure:
            raise self._describe(failure) from failure

    def find_writer(self) -> str | None:
        """Return what uses the file or device and may write to it; None if nothing is known to."""
        return find_writer(self._descriptor)

    def find_change(self) -> str | None:
        """Return how it was changed since it was opened; None if it was not. Raises ImageError."""
        try:
            return self._watch.find_change()
        except OSError as error:
            raise self._failure("cannot be examined again", error.errno) from error

    def find_new_size(self) -> int | None:
        """Return how many bytes it has now, if it was resized since it was opened; None if not. Raises ImageError."""
        try:
            size_bytes = self._find_size()
        except OSError as error:
            raise self._failure("cannot be examined again", error.errno) from error
        return None if size_bytes == self.size_bytes else size_bytes

    def close(self) -> None:
        """Close the descriptor."""
        self._watch.close()
        if self._direct_descriptor >= 0:
            os.close(self._direct_descriptor)
        os.close(self._descriptor)

    def _make_watch(self, size_bytes: int) -> WriteWatch:
        return FileWatch(self._descriptor, size_bytes)

    def _find_size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def _find_alignment(self) -> int:
        return read_file_status(self._descriptor).direct_alignment

    def _make_reader(self, alignment: int) -> Reader:
        return CachedReader(self._descriptor, self.size_bytes or 0, self._make_direct_reader(alignment))

    def _make_direct_reader(self, alignment: int) -> DirectReader | None:
        """Return what reads past the page cache; None where the file system does not say how, or it cannot be opened so."""
        if not alignment:
            return None
        with suppress(OSError):
            return DirectReader(self._open_direct(), max(USUAL_ALIGNMENT, alignment))
        return None

    def _open_direct(self) -> int:
        """Return another descriptor of the same, which passes the page cache; raises OSError."""
        if self._direct_descriptor < 0:
            path, flags = f"/proc/self/fd/{self._descriptor}", os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC
            self._direct_descriptor = os.open(path, flags)
        return self._direct_descriptor

    def _make_salvage_reader(self, reader: Reader, size_bytes: int) -> SalvageReader:
        """Return what reads around bad sectors: one by one past the page cache if possible, else page by page."""
        fine, granule_bytes = reader, USUAL_ALIGNMENT
        with suppress(OSError):
            granule_bytes = self._find_alignment() or USUAL_ALIGNMENT
            fine = DirectReader(self._open_direct(), granule_bytes)
        return SalvageReader(
            reader, fine, size_bytes=size_bytes, granule_bytes=granule_bytes, max_extents=MAX_UNREADABLE_EXTENTS
        )

    def _describe(self, failure: ReadFailure | TooMuchUnreadable) -> ImageError:
        if isinstance(failure, TooMuchUnreadable):
            return describe_loss(self.path, self.unreadable)
        error = self._failure(f"cannot be read at byte {failure.offset}", failure.error_number)
        error.hint = hint_at_salvage(failure)
        return error

    def _failure(self, problem: str, error_number: int | None) -> ImageError:
        return ImageError(self.path, f"{problem}: {os.strerror(error_number or 0)}")


class BlockDeviceSource(RawSource):
    """A block device. It has no holes.

    It is read past its page cache, where that is possible: what a file system that is mounted from it, or a guest whose disk it
    is, writes to the device does not go through that cache, which may have older content for as long as the device is open.
    """

    is_device = True

    def __init__(self, path: str, descriptor: int, *, is_direct: bool = False, is_salvaging: bool = False) -> None:
        self.sector_bytes = read_sector_bytes(descriptor)
        super().__init__(path, descriptor, use_holes=False, is_direct=is_direct, is_salvaging=is_salvaging)

    def _make_watch(self, size_bytes: int) -> WriteWatch:
        return DeviceWatch(self._descriptor, size_bytes)

    def _make_reader(self, alignment: int) -> Reader:
        return self._make_direct_reader(alignment) or super()._make_reader(alignment)

    def _find_size(self) -> int:
        size_bytes = read_device_bytes(self._descriptor)
        if not size_bytes:
            raise UnsupportedImage(self.path, "has 0 bytes", hint="is a medium in it, or a file attached to it?")
        return size_bytes

    def _find_alignment(self) -> int:
        return self.sector_bytes
