# SPDX-License-Identifier: Apache-2.0
"""A day kept as what it changed: many days of one guest in the space of a few images.

Writes  `GUEST-nightN.changes`: one zstd frame of a head (counts of runs written and runs punched), the runs as pairs of
        first block and count, and the bytes of the runs written.
Always  a day's changes, applied to the image of the day before, give its image bit for bit, holes where holes were.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import zstandard
from measuring.files import data_extents
from numpy.typing import NDArray

_BLOCK_BYTES = 4096
_SPAN_BLOCKS = 4096
_KEEP_SIZE, _PUNCH_HOLE = 1, 2  # linux/falloc.h
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
Runs = NDArray[np.int64]


def write_changes(before: Path, after: Path, target: Path) -> int:
    """Write what turns the image `before` into `after`, of the same size; return how many blocks are written."""
    here, there = _data_mask(before), _data_mask(after)
    written = _runs(_differing(before, after, here | there) & there)
    punched = _runs(here & ~there)
    growing = target.with_suffix(".growing")
    compressor = zstandard.ZstdCompressor(level=1, threads=-1)
    with after.open("rb") as image, growing.open("wb") as file, compressor.stream_writer(file) as stream:
        stream.write(np.array([len(written), len(punched)], np.int64).tobytes())
        stream.write(written.tobytes())
        stream.write(punched.tobytes())
        for first, count in written.tolist():
            stream.write(os.pread(image.fileno(), count * _BLOCK_BYTES, first * _BLOCK_BYTES))
    growing.rename(target)
    return int(written[:, 1].sum())


def apply_changes(changes: Path, image: Path) -> None:
    """Turn the image of the day before into that of the day that `changes` is of, in place."""
    with changes.open("rb") as file, image.open("r+b", buffering=0) as into:
        stream = zstandard.ZstdDecompressor().stream_reader(file)
        counts = np.frombuffer(_take(stream, 16), np.int64).tolist()
        written, punched = (np.frombuffer(_take(stream, count * 16), np.int64).reshape(-1, 2) for count in counts)
        for first, count in written.tolist():
            os.pwrite(into.fileno(), _take(stream, count * _BLOCK_BYTES), first * _BLOCK_BYTES)
        for first, count in punched.tolist():
            _punch(into.fileno(), first * _BLOCK_BYTES, count * _BLOCK_BYTES)


def _data_mask(path: Path) -> NDArray[np.bool_]:
    """Which blocks of a sparse file hold data."""
    mask = np.zeros(-(-path.stat().st_size // _BLOCK_BYTES), np.bool_)
    for start, end in data_extents(path):
        mask[start // _BLOCK_BYTES : -(-end // _BLOCK_BYTES)] = True
    return mask


def _differing(before: Path, after: Path, where: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which of the blocks `where` have other bytes."""
    differs = np.zeros_like(where)
    with before.open("rb") as one, after.open("rb") as other:
        for first, count in _spans(where):
            old, new = (
                np.frombuffer(os.pread(file.fileno(), count * _BLOCK_BYTES, first * _BLOCK_BYTES), np.uint64)
                for file in (one, other)
            )
            differs[first : first + count] = (old != new).reshape(count, -1).any(axis=1)
    return differs


def _spans(mask: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Runs of a mask, cut where they are longer than what is read at once."""
    for first, count in _runs(mask).tolist():
        for start in range(first, first + count, _SPAN_BLOCKS):
            yield start, min(_SPAN_BLOCKS, first + count - start)


def _runs(mask: NDArray[np.bool_]) -> Runs:
    """First and count of each run of a mask, one a row."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(np.int8)))
    return np.column_stack((edges[::2], edges[1::2] - edges[::2])).astype(np.int64)


def _take(stream: zstandard.ZstdDecompressionReader, count: int) -> bytes:
    parts = []
    while count:
        part = stream.read(count)
        if not part:
            raise EOFError("a file of changes ends too early")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _punch(descriptor: int, offset: int, length: int) -> None:
    if _LIBC.fallocate(descriptor, _PUNCH_HOLE | _KEEP_SIZE, offset, length):
        raise OSError(ctypes.get_errno(), "cannot punch a hole")
