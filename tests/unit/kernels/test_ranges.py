# SPDX-License-Identifier: Apache-2.0
"""Many ranges of a file in one call, in C and in Python."""

from __future__ import annotations

import errno
import os
import random

import numpy as np
import pytest

from deltaimg.arrays import RANGE, ranges_of_blocks
from deltaimg.errors import NativeError
from deltaimg.kernels import reference_ranges
from deltaimg.kernels.layout import FailedRange

native = pytest.importorskip("deltaimg.kernels.native", reason="the native core is not built")
both = pytest.mark.parametrize("kernels", [native, reference_ranges], ids=["native", "reference"])


@pytest.fixture
def descriptor(tmp_path):
    opened = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield opened
    os.close(opened)


def ranges_of(*ranges):
    return np.array(list(ranges), RANGE)


@both
def test_what_was_written_in_pieces_is_read_back(kernels, descriptor):
    data = random.Random(1).randbytes(100_000)
    order = random.Random(2).sample(range(100), 100)
    ranges = ranges_of(*((to * 1000, 1000, number * 1000) for number, to in enumerate(order)))
    assert kernels.write_ranges(descriptor, ranges, data, 300) is None
    back = bytearray(len(data))
    assert kernels.read_ranges(descriptor, ranges, back) is None
    assert back == data
    assert os.pread(descriptor, 1000, order[7] * 1000) == data[7000:8000]


@both
def test_the_range_that_fails_is_told_by_its_number(kernels, descriptor):
    os.pwrite(descriptor, b"abcdef", 0)
    out = bytearray(6)
    assert kernels.read_ranges(descriptor, ranges_of((0, 3, 0), (4, 3, 3)), out) == FailedRange(1, 0)
    assert out == b"abcef\0"
    assert kernels.read_ranges(-1, ranges_of((0, 1, 0)), out) == FailedRange(0, errno.EBADF)
    assert kernels.write_ranges(-1, ranges_of((0, 0, 0), (0, 1, 0)), b"x", 1) == FailedRange(1, errno.EBADF)


@both
def test_only_what_is_cached_can_be_asked_for(kernels, descriptor):
    os.pwrite(descriptor, b"abc", 0)
    out = bytearray(3)
    failed = kernels.read_ranges(descriptor, ranges_of((0, 3, 0)), out, only_cached=True)
    assert out == b"abc" if failed is None else failed.error_number in (errno.EAGAIN, errno.EOPNOTSUPP)


@both
@pytest.mark.parametrize("wrong", [(-1, 1, 0), (0, -1, 0), (2**63 - 1, 1, 0)])
def test_impossible_ranges_are_refused(kernels, descriptor, wrong):
    with pytest.raises(NativeError, match=r"^read_ranges: BAD_ARGUMENT$"):
        kernels.read_ranges(descriptor, ranges_of((0, 0, 0), wrong), bytearray(2))


@both
def test_memory_is_never_left(kernels, descriptor):
    with pytest.raises(NativeError, match=r"^write_ranges: BUFFER_TOO_SMALL$"):
        kernels.write_ranges(descriptor, ranges_of((0, 2, 0), (2, 2, 1)), b"ab", 9)
    assert os.fstat(descriptor).st_size == 0
    with pytest.raises(NativeError, match=r"^write_ranges: BAD_ARGUMENT$"):
        kernels.write_ranges(descriptor, ranges_of((0, 2, 0)), b"ab", 0)


def test_blocks_that_follow_each_other_become_one_range():
    blocks, places = np.array([5, 6, 7, 9, 3, 4]), np.array([0, 1, 3, 4, 5, 6])
    assert ranges_of_blocks(blocks, places, 10).tolist() == [(50, 20, 0), (70, 10, 30), (90, 10, 40), (30, 20, 50)]
    assert not len(ranges_of_blocks(blocks[:0], places[:0], 10))
