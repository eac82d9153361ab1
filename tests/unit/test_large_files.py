# SPDX-License-Identifier: Apache-2.0
"""Large files are written past the page cache where that is possible, and are the same where it is not."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from deltaimg.arrays import RANGE
from deltaimg.file_status import read_file_status
from deltaimg.kernels import read_ranges
from deltaimg.large_files import write_large

_BUFFER = 4 << 20
_RNG = np.random.default_rng(31)
_BYTES = _RNG.bytes(3 * _BUFFER)
_LENGTHS = [
    [0],
    [1],
    [4095],
    [4096],
    [512 << 10],
    [(512 << 10) + 1],
    [_BUFFER - 1],
    [_BUFFER],
    [_BUFFER + 1],
    [0, 5, 0, _BUFFER - 5, 7],
    [100_001] * 91,
    [2 * _BUFFER, 3, _BUFFER - 4096],
]


def _split(lengths: list[int]) -> list[bytes]:
    ends = np.cumsum(lengths).tolist()
    return [_BYTES[end - length : end] for end, length in zip(ends, lengths, strict=True)]


def _is_direct(descriptor: int) -> bool:
    return bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT)


def _write(path: Path, parts: list[bytes]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        write_large(descriptor, parts)
        assert not _is_direct(descriptor)
    finally:
        os.close(descriptor)


def _refuse(monkeypatch: pytest.MonkeyPatch, after: int, number: int = errno.EINVAL) -> None:
    """Have direct writes fail after some, as those to a file system that refuses them do."""
    write: Callable[[int, memoryview], int] = os.write
    left = after

    def fail(descriptor: int, data: memoryview) -> int:
        nonlocal left
        if _is_direct(descriptor):
            left -= 1
            if left < 0:
                raise OSError(number, os.strerror(number))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", fail)


@pytest.mark.parametrize("lengths", _LENGTHS, ids=str)
def test_all_bytes_arrive_in_order(tmp_path: Path, lengths: list[int]) -> None:
    _write(tmp_path / "file", _split(lengths))
    assert (tmp_path / "file").read_bytes() == _BYTES[: sum(lengths)]


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_file_system_that_refuses_direct_writes_gets_ordinary_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    _refuse(monkeypatch, after)
    _write(tmp_path / "file", [_BYTES[:-5]])
    assert (tmp_path / "file").read_bytes() == _BYTES[:-5]


def test_a_write_that_is_cut_short_goes_on_where_it_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(
        os, "write", lambda descriptor, data: write(descriptor, data[: max(512, len(data) // 2 // 512 * 512)])
    )
    _write(tmp_path / "file", _split([_BUFFER + 7, 9000]))
    assert (tmp_path / "file").read_bytes() == _BYTES[: _BUFFER + 9007]


def test_a_disk_without_room_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not _has_direct(tmp_path):
        pytest.skip("this file system does not say how direct writes are aligned")
    _refuse(monkeypatch, 1, errno.ENOSPC)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        _write(tmp_path / "file", [_BYTES])


def test_a_file_goes_on_from_any_position(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("xb", buffering=0) as file:
        for part in (_BYTES[:10], _BYTES[10 : _BUFFER + 20], _BYTES[_BUFFER + 20 :]):
            write_large(file.fileno(), [part])
    assert path.read_bytes() == _BYTES


def test_what_was_written_is_not_left_in_the_page_cache(tmp_path: Path) -> None:
    if not _has_direct(tmp_path):
        pytest.skip("this file system does not say how direct writes are aligned")
    _write(tmp_path / "file", [_BYTES])
    descriptor = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        ranges = np.array([(place, 4096, 0) for place in range(0, len(_BYTES), _BUFFER // 2)], RANGE)
        room = bytearray(4096)
        cached = [read_ranges(descriptor, each[None], room, only_cached=True) is None for each in ranges]
    finally:
        os.close(descriptor)
    assert not any(cached)


def _has_direct(folder: Path) -> bool:
    descriptor = os.open(folder / "trial", os.O_WRONLY | os.O_CREAT)
    try:
        return read_file_status(descriptor).direct_alignment > 0
    finally:
        os.close(descriptor)
