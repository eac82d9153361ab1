# SPDX-License-Identifier: Apache-2.0
"""Columns of integers as byte planes under zstd: all first bytes, then all second bytes, and so on.

Small numbers leave their high planes zero, so that the planes compress as well as variable-length integers do, while
reading and writing stay a reshape, with no parser that hostile input could lead astray.

    packed := zero* frame
    frame  := one zstd frame of the columns, one after another, with its content size in it

Memory  one column, and the window of zstd. So a table may be as large as one likes if its columns are cut in pieces.
Always  packed columns have at least 1/64 of the bytes that they expand to; regular ones have zeros before them for that. So
        a reader's memory is bounded by the bytes that are stored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt
import zstandard

from deltaimg.errors import Malformed
from deltaimg.format.limits import MAX_COLUMN_EXPANSION

_LEVEL: Final = 9
_MAX_WINDOW_BYTES: Final = 1 << 23
"""Of a frame that is read; those of level 9 have half of it at most."""
_ZEROS = re.compile(rb"\0*")


def pack_columns(columns: Iterable[npt.NDArray[Any]], size_bytes: int | None = None) -> bytes:
    """Return columns packed.

    Args:
        size_bytes: of all of them together; not needed for a sequence of them.
    """
    if size_bytes is None:
        columns = list(columns)
        size_bytes = sum(column.nbytes for column in columns)
    compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=False).compressobj(size=size_bytes)
    parts = [compressor.compress(_to_planes(column)) for column in columns]
    parts.append(compressor.flush())
    return b"".join(parts).rjust(-(-size_bytes // MAX_COLUMN_EXPANSION), b"\0")


def _to_planes(column: npt.NDArray[Any]) -> bytes:
    little = np.ascontiguousarray(column.astype(column.dtype.newbyteorder("<"), copy=False))
    return little.view(np.uint8).reshape(-1, little.itemsize).T.tobytes()


class ColumnReader:
    """Takes columns off packed ones, front to back; nothing is expanded before it is requested."""

    def __init__(self, name: str, offset: int, packed: bytes | memoryview, size_bytes: int) -> None:
        """Args: name, offset: the object and the place of `packed` in it, for errors. size_bytes: what it must expand to.

        Raises:
            Malformed: `packed` is no zstd frame of that size, or too short for it.
        """
        self._name, self._offset = name, offset
        zeros = _ZEROS.match(packed)
        frame = memoryview(packed)[zeros.end() if zeros else 0 :]
        try:
            if zstandard.frame_content_size(frame) != size_bytes:
                self._refuse(f"its columns do not expand to {size_bytes} bytes")
        except zstandard.ZstdError as error:
            self._refuse(f"its columns cannot be expanded: {error}", error)
        if size_bytes > len(packed) * MAX_COLUMN_EXPANSION:
            self._refuse(f"its columns have {len(packed)} bytes, too few to expand to {size_bytes}")
        # Across frames: so that what follows the frame is checked, and is no other frame.
        decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
        self._planes = decompressor.stream_reader(frame, read_across_frames=True)

    def take(self, kind: str, length: int) -> npt.NDArray[Any]:
        """Return the next `length` values, of the numpy type `kind`; raises Malformed where they end before."""
        width = np.dtype(kind).itemsize
        planes = bytearray(width * length)
        view = memoryview(planes)
        try:
            while view and (got := self._planes.readinto(view)):
                view = view[got:]
        except zstandard.ZstdError as error:
            self._refuse(f"its columns cannot be expanded: {error}", error)
        if view:
            self._refuse("its columns expand to fewer bytes than they say")
        rows = np.frombuffer(planes, np.uint8).reshape(width, length)
        column: npt.NDArray[Any] = np.ascontiguousarray(rows.T).view(kind).reshape(length)
        return column

    def expect_end(self) -> None:
        """Refuse values that were not taken, and whatever follows the frame."""
        try:
            is_over = not self._planes.read(1)
        except zstandard.ZstdError as error:
            self._refuse(f"its columns cannot be expanded: {error}", error)
        if not is_over:
            self._refuse("its columns expand to more bytes than they say")

    def _refuse(self, problem: str, cause: Exception | None = None) -> NoReturn:
        raise Malformed(self._name, self._offset, problem) from cause


def unpack_columns(
    name: str, offset: int, packed: bytes | memoryview, layout: Sequence[tuple[str, int]]
) -> list[npt.NDArray[Any]]:
    """Return the columns of `layout`, a list of (numpy type, length), from `packed`; raises Malformed as `ColumnReader`."""
    reader = ColumnReader(name, offset, packed, sum(np.dtype(kind).itemsize * length for kind, length in layout))
    columns = [reader.take(kind, length) for kind, length in layout]
    reader.expect_end()
    return columns
