# SPDX-License-Identifier: Apache-2.0
"""Whether the journal of an XFS ends with the record of an orderly unmount: then nothing in it is waiting to be replayed.

The log is a ring of basic blocks of 512 bytes. Each begins with the number of the round in which it was written: the head is
where that number drops. The last record before the head must be an unmount record that ends right there.

Source  XFS Algorithms & Data Structures, "Journaling Log"; xlog_find_head and xlog_check_unmount_rec of Linux.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from deltaimg.guest.window import Window

_BLOCK_BYTES = 512
_MAGIC = 0xFEEDBABE
_CYCLE_BYTES = 32768
"""What one header block covers: it keeps the first word of each block, in whose place the round stands."""
_VERSION_2, _UNMOUNT = 0x2, 0x20
_MOST_IN_FLIGHT = 4096
"""Blocks that may have been on their way to the disk at once, and so not be in order before the head: 8 buffers of 256 KiB."""
_UUID_OFFSET, _SIZE_OFFSET, _FLAGS_OFFSET = 304, 320, 9

_Numbers = npt.NDArray[np.int64]


def is_clean(log: Window, uuid: bytes) -> bool:
    """Return whether a log ends with an unmount record; raises one of NOT_RECOGNISED where it makes no sense.

    Args:
        log: all of the log, and nothing else. uuid: of the file system that wrote it.
    """
    count = log.size_bytes // _BLOCK_BYTES
    newest = _read_rounds(log, 0, 1)[0]
    if not newest:
        return False
    head = _find_head(log, count, newest)
    before = np.arange(head - min(count - 1, _MOST_IN_FLIGHT), head)
    if not _are_in_order(log, before, head, newest):
        return False
    return _ends_with_unmount(log, head, uuid)


def _find_head(log: Window, count: int, newest: int) -> int:
    """Return the first block that was not written in the newest round: `count` where all were."""
    low, high = 1, count
    while low < high:
        middle = (low + high) // 2
        if _read_rounds(log, middle, 1)[0] == newest:
            low = middle + 1
        else:
            high = middle
    return low


def _are_in_order(log: Window, before: _Numbers, head: int, newest: int) -> bool:
    """Return whether blocks before the head are of the newest round, those behind it of the one before, or never written."""
    here = before[before >= 0]
    rounds = _read_rounds(log, int(here[0]), len(here))
    if (rounds != newest).any():
        return False
    count = log.size_bytes // _BLOCK_BYTES
    after = min(count - head, _MOST_IN_FLIGHT)
    if not after:
        return True
    following = _read_rounds(log, head, after)
    return bool((following == following[0]).all()) and int(following[0]) in (0, newest - 1)


def _ends_with_unmount(log: Window, head: int, uuid: bytes) -> bool:
    start = head - 2
    # An unmount record is a header and one operation, padded to the stripe unit of the log, which is at most 256 KiB.
    while start >= max(0, head - 1 - _MOST_IN_FLIGHT // 8):
        raw = log.read(start * _BLOCK_BYTES, _BLOCK_BYTES)
        magic, _, version, length = struct.unpack_from(">IIII", raw)
        if magic != _MAGIC:
            start -= 1
            continue
        (operations,), (size,) = struct.unpack_from(">I", raw, 40), struct.unpack_from(">I", raw, _SIZE_OFFSET)
        headers = max(1, -(-size // _CYCLE_BYTES)) if version & _VERSION_2 else 1
        end = start + headers + -(-length // _BLOCK_BYTES)
        if raw[_UUID_OFFSET : _UUID_OFFSET + 16] != uuid or operations != 1 or end != head:
            return False
        return bool(log.read((start + headers) * _BLOCK_BYTES, 12)[_FLAGS_OFFSET] & _UNMOUNT)
    return False


def _read_rounds(log: Window, first: int, count: int) -> _Numbers:
    """Return the round of each of some blocks."""
    raw = np.frombuffer(log.read(first * _BLOCK_BYTES, count * _BLOCK_BYTES), ">u4").reshape(count, -1)
    return np.where(raw[:, 0] == _MAGIC, raw[:, 1], raw[:, 0]).astype(np.int64)
