# SPDX-License-Identifier: Apache-2.0
"""Many ranges of one file in plain Python: what `dimg_read_ranges` and `dimg_write_ranges` mean."""

from __future__ import annotations

import os

from deltaimg.arrays import Ranges
from deltaimg.errors import NativeError
from deltaimg.kernels.layout import Buffer, FailedRange, view_octets


def read_ranges(descriptor: int, ranges: Ranges, out: Buffer, *, only_cached: bool = False) -> FailedRange | None:
    """Fill `out` from ranges of a file; return the first that could not be read whole, None if there is none.

    Args:
        only_cached: read nothing that is not in the page cache (RWF_NOWAIT).
    """
    flags = os.RWF_NOWAIT if only_cached else 0
    memory = view_octets(out)
    for number, (offset, length, start) in enumerate(_check("read_ranges", ranges, len(memory))):
        done = 0
        while done < length:
            try:
                got = os.preadv(descriptor, [memory[start + done : start + length]], offset + done, flags)
            except OSError as error:
                return FailedRange(number, error.errno or 0)
            if not got:
                return FailedRange(number, 0)
            done += got
    return None


def write_ranges(descriptor: int, ranges: Ranges, data: Buffer, most_bytes: int) -> FailedRange | None:
    """Write ranges of a file from `data`, at most `most_bytes` at a time; return the first that failed, None if none did."""
    if most_bytes <= 0:
        raise NativeError("write_ranges", "BAD_ARGUMENT")
    memory = view_octets(data)
    for number, (offset, length, start) in enumerate(_check("write_ranges", ranges, len(memory))):
        done = 0
        while done < length:
            end = start + min(length, done + most_bytes)
            try:
                done += os.pwrite(descriptor, memory[start + done : end], offset + done)
            except OSError as error:
                return FailedRange(number, error.errno or 0)
    return None


def _check(function: str, ranges: Ranges, memory_bytes: int) -> list[tuple[int, int, int]]:
    checked: list[tuple[int, int, int]] = ranges.tolist()
    for offset, length, start in checked:
        if offset < 0 or length < 0 or offset + length >= 2**63:
            raise NativeError(function, "BAD_ARGUMENT")
        if start + length > memory_bytes:
            raise NativeError(function, "BUFFER_TOO_SMALL")
    return checked
