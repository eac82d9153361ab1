# SPDX-License-Identifier: Apache-2.0
"""Columns of integers as byte planes under zstd."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import zstandard

from deltaimg.errors import Malformed
from deltaimg.format.columns import pack_columns, unpack_columns
from deltaimg.format.limits import MAX_EXPANSION
from tests.golden import forge


def test_planes_are_all_first_bytes_then_all_second_bytes():
    packed, size_bytes = pack_columns([np.array([0x0102, 0x0304], "<u2"), np.array([7], "u1")])
    assert zstandard.decompress(packed) == bytes([0x02, 0x04, 0x01, 0x03, 7])
    assert size_bytes == 5


@pytest.mark.parametrize("kind", ["B", "H", "I", "Q"])
def test_planes_are_those_of_a_second_writer(kind):
    values = [0, 1, 255, 200, 7]
    assert zstandard.decompress(pack_columns([np.array(values, np.dtype(kind))])[0]) == forge.pack_planes(
        (kind, values)
    )


def test_what_the_processor_calls_big_endian_is_written_little_endian():
    assert pack_columns([np.array([1, 2], ">u4")]) == pack_columns([np.array([1, 2], "<u4")])


def test_columns_come_back_and_may_be_empty_or_views():
    columns = [np.arange(100, dtype="<u8")[::3] * 2**50, np.empty(0, "<u4"), np.arange(9, dtype="u1")]
    packed, _ = pack_columns(columns)
    found = unpack_columns("x", 0, packed, [("<u8", 34), ("<u4", 0), ("u1", 9)])
    for column, expected in zip(found, columns, strict=True):
        assert column.dtype == expected.dtype
        np.testing.assert_array_equal(column, expected)


def test_a_frame_that_promises_gigabytes_in_few_bytes_is_refused_before_anything_is_allocated():
    size_bytes = 2**33
    hollow = b"\x28\xb5\x2f\xfd\xe0" + size_bytes.to_bytes(8, "little") + b"\1\0\0"
    assert zstandard.frame_content_size(hollow) == size_bytes
    tracemalloc.start()
    try:
        with pytest.raises(Malformed, match="do not expand to"):
            unpack_columns("x", 0, hollow, [("<u8", size_bytes // 8)])
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("level", [1, 9, 19])
@pytest.mark.parametrize("size_bytes", [2**17, 2**20, 2**25])
def test_no_honest_frame_expands_further_than_the_limit_says(level, size_bytes):
    packed = zstandard.compress(bytes(size_bytes), level)
    assert size_bytes <= len(packed) * MAX_EXPANSION
    assert not unpack_columns("x", 0, packed, [("u1", size_bytes)])[0].any()


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"(",
        zstandard.compress(bytes(8))[:-1],
        zstandard.compress(bytes(8)) + b"\0",
        zstandard.compress(bytes(8)) * 2,
        zstandard.compress(bytes(7)),
        zstandard.compress(bytes(9)),
        zstandard.ZstdCompressor(write_content_size=False).compress(bytes(8)),
        b"\x50\x2a\x4d\x18\x08\x00\x00\x00" + bytes(8),
    ],
    ids=["empty", "a-byte", "cut", "extended", "twice", "smaller", "larger", "no-size", "skippable"],
)
def test_what_is_not_one_frame_of_the_right_size_is_refused(packed):
    with pytest.raises(Malformed) as caught:
        unpack_columns("maps/x", 104, packed, [("<u4", 2)])
    assert (caught.value.object_name, caught.value.offset) == ("maps/x", 104)
