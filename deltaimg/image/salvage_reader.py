# SPDX-License-Identifier: Apache-2.0
"""Reads around what a disk cannot read any more: it becomes zeros, down to the sector, and is remembered."""

from __future__ import annotations

import errno
import threading
from bisect import bisect_left, bisect_right

from deltaimg.arrays import Ranges
from deltaimg.errors import ImageError
from deltaimg.image.reader import Reader, ReadFailure
from deltaimg.model import Extent

OF_THE_MEDIUM = (
    errno.EIO,
    errno.ENODATA,
    errno.EILSEQ,
    errno.EREMOTEIO,
    errno.ETIMEDOUT,
    errno.EBADMSG,
    errno.EUCLEAN,
)
"""The errors for content that is lost on the medium. A device that has disappeared gives others as well."""
_MIN_BYTES = 1 << 26
_MAX_SHARE = 10
"""Up to this many bytes may be unreadable, or one byte in this many; beyond that the whole device has more likely failed."""


class TooMuchUnreadable(Exception):
    """More of the image cannot be read than a backup is worth. What could not be read until then is in `unreadable`."""


class ExtentSet:
    """Extents, kept ascending and apart."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self.total_bytes = 0

    def __len__(self) -> int:
        return len(self._starts)

    def add(self, start: int, end: int) -> None:
        """Add an extent, joined with those that it meets."""
        first = bisect_left(self._ends, start)
        last = bisect_right(self._starts, end)
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self.total_bytes += end - start
        self.total_bytes -= sum(self._ends[first:last]) - sum(self._starts[first:last])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def to_tuple(self) -> tuple[Extent, ...]:
        """Return all extents."""
        return tuple(map(Extent, self._starts, self._ends))


class SalvageReader:
    """Reads by `reader`; where that fails, by `fine` in pieces down to `granule_bytes`."""

    def __init__(self, reader: Reader, fine: Reader, *, size_bytes: int, granule_bytes: int, max_extents: int) -> None:
        self._reader, self._fine = reader, fine
        self._size_bytes, self._granule_bytes = size_bytes, granule_bytes
        self._max_extents = max_extents
        self._lock = threading.Lock()
        self._lost = ExtentSet()

    @property
    def unreadable(self) -> tuple[Extent, ...]:
        """What reads as zeros instead of what is on the disk, ascending and apart."""
        with self._lock:
            return self._lost.to_tuple()

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill `buffer` from `offset`, zeros where the medium fails; raises ReadFailure otherwise, or TooMuchUnreadable."""
        try:
            return self._reader.read_into(offset, buffer)
        except ReadFailure as failure:
            if failure.error_number not in OF_THE_MEDIUM:
                raise
            got = max(0, failure.offset - offset)
            return got + self._read_around(offset + got, buffer[got:])

    def reread(self, ranges: Ranges, out: memoryview) -> None:
        """Fill parts of `out` again, zeros where the medium fails now; raises as `read_into`."""
        try:
            self._reader.reread(ranges, out)
        except ReadFailure as failure:
            if failure.error_number not in OF_THE_MEDIUM:
                raise
            for offset, length, start in ranges.tolist():
                self.read_into(offset, out[start : start + length])

    def _read_around(self, offset: int, buffer: memoryview) -> int:
        """Fill a buffer as `read_into` does, a granule at a time where reads fail, in growing pieces where they do not."""
        granule = self._granule_bytes
        end = min(offset + len(buffer), self._size_bytes)
        position, step = offset, granule
        while position < end:
            wanted = min(step - position % granule, end - position)
            piece = buffer[position - offset : position - offset + wanted]
            try:
                got = self._fine.read_into(position, piece)
            except ReadFailure as failure:
                if failure.error_number not in OF_THE_MEDIUM:
                    raise
                position = max(position, failure.offset)
                if step == granule:
                    lost = min(granule - position % granule, end - position)
                    buffer[position - offset : position - offset + lost] = bytes(lost)
                    self._note(position, position + lost)
                    position += lost
                step = granule
                continue
            position += got
            step *= 2
            if got < wanted:
                break
        return max(0, position - offset)

    def _note(self, start: int, end: int) -> None:
        with self._lock:
            self._lost.add(start, end)
            most_bytes = max(_MIN_BYTES, self._size_bytes // _MAX_SHARE)
            if len(self._lost) > self._max_extents or self._lost.total_bytes > most_bytes:
                raise TooMuchUnreadable


def hint_at_salvage(failure: ReadFailure) -> str | None:
    """Return what to do where a disk cannot read; None for any other failure."""
    if failure.error_number not in OF_THE_MEDIUM:
        return None
    return "'deltaimg backup --on-read-error zero' stores the rest; ddrescue may get more out of a failing disk"


def describe_loss(path: str, lost: tuple[Extent, ...]) -> ImageError:
    """Return the error for an image of which too much cannot be read."""
    lost_bytes = sum(extent.length for extent in lost)
    return ImageError(
        path,
        f"{lost_bytes} bytes in {len(lost)} places cannot be read, and perhaps more: it may have failed as a whole",
        hint="copy what can be read with ddrescue, and back up the copy",
    )
