# SPDX-License-Identifier: Apache-2.0
"""Columns of integers as byte planes under zstd: all first bytes, then all second bytes, and so on.

Small numbers leave their high planes zero, so that the planes compress as well as variable-length integers do, while
reading and writing stay a reshape, with no parser that hostile input could lead astray.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import zstandard

from deltaimg.errors import Malformed
from deltaimg.format.limits import MAX_EXPANSION

_LEVEL = 9


def pack_columns(columns: Sequence[npt.NDArray[Any]]) -> tuple[bytes, int]:
    """Return the columns' byte planes, compressed, and how many bytes they were."""
    planes = b"".join(
        np.ascontiguousarray(
            column.astype(column.dtype.newbyteorder("<")).view(np.uint8).reshape(-1, column.itemsize).T
        ).tobytes()
        for column in columns
    )
    return zstandard.ZstdCompressor(level=_LEVEL, write_checksum=False).compress(planes), len(planes)


def unpack_columns(name: str, offset: int, packed: bytes, layout: Sequence[tuple[str, int]]) -> list[npt.NDArray[Any]]:
    """Return the columns of `layout`, a list of (numpy type, length), from `packed`.

    Raises:
        Malformed: `packed` is no zstd frame of exactly the size that `layout` implies; nothing larger is ever expanded.
    """
    expected_bytes = sum(np.dtype(kind).itemsize * length for kind, length in layout)
    try:
        if zstandard.frame_content_size(packed) != expected_bytes or expected_bytes > len(packed) * MAX_EXPANSION:
            raise Malformed(name, offset, f"its columns do not expand to {expected_bytes} bytes")
        planes = zstandard.ZstdDecompressor().decompress(packed, max_output_size=expected_bytes, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Malformed(name, offset, f"its columns cannot be expanded: {error}") from error
    if len(planes) != expected_bytes:
        raise Malformed(name, offset, f"its columns expand to {len(planes)} bytes, not {expected_bytes}")
    columns = []
    position = 0
    for kind, length in layout:
        width = np.dtype(kind).itemsize
        plane = np.frombuffer(planes, np.uint8, width * length, position).reshape(width, length)
        columns.append(np.ascontiguousarray(plane.T).view(kind).reshape(length))
        position += width * length
    return columns
