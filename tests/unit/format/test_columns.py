# SPDX-License-Identifier: Apache-2.0
"""Columns of integers as byte planes under zstd."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import zstandard

from deltaimg.errors import Malformed
from deltaimg.format.columns import ColumnReader, pack_columns, unpack_columns
from tests.golden import forge


def test_planes_are_all_first_bytes_then_all_second_bytes():
    packed = pack_columns([np.array([0x0102, 0x0304], "<u2"), np.array([7], "u1")])
    assert zstandard.decompress(packed) == bytes([0x02, 0x04, 0x01, 0x03, 7])


@pytest.mark.parametrize("kind", ["B", "H", "I", "Q"])
def test_planes_are_those_of_a_second_writer(kind):
    values = [0, 1, 255, 200, 7]
    assert zstandard.decompress(pack_columns([np.array(values, np.dtype(kind))])) == forge.pack_planes((kind, values))


def test_what_the_processor_calls_big_endian_is_written_little_endian():
    assert pack_columns([np.array([1, 2], ">u4")]) == pack_columns([np.array([1, 2], "<u4")])


def test_columns_are_read_as_written_and_may_be_empty_or_views():
    columns = [np.arange(100, dtype="<u8")[::3] * 2**50, np.empty(0, "<u4"), np.arange(9, dtype="u1")]
    found = unpack_columns("x", 0, pack_columns(columns), [("<u8", 34), ("<u4", 0), ("u1", 9)])
    for column, expected in zip(found, columns, strict=True):
        assert column.dtype == expected.dtype
        np.testing.assert_array_equal(column, expected)


def test_columns_that_come_one_by_one_are_packed_as_those_that_are_there_together():
    columns = [np.arange(70_000, dtype="<u4"), np.zeros(3, "u1")]
    assert pack_columns(iter(columns), 280_003) == pack_columns(columns)


def test_a_frame_that_promises_gigabytes_in_few_bytes_is_refused_before_anything_is_allocated():
    size_bytes = 2**33
    hollow = b"\x28\xb5\x2f\xfd\xe0" + size_bytes.to_bytes(8, "little") + b"\1\0\0"
    assert zstandard.frame_content_size(hollow) == size_bytes
    tracemalloc.start()
    try:
        with pytest.raises(Malformed, match="too few to expand to"):
            unpack_columns("x", 0, hollow, [("<u8", size_bytes // 8)])
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size_bytes", [64, 65, 2**20 + 1, 2**23])
def test_regular_columns_get_as_many_zeros_as_make_them_a_64th_of_what_they_expand_to(size_bytes):
    packed = pack_columns([np.zeros(size_bytes, "u1")])
    frame = packed.lstrip(b"\0")
    assert len(packed) == max(len(frame), -(-size_bytes // 64))
    assert not unpack_columns("x", 0, packed, [("u1", size_bytes)])[0].any()
    if len(packed) > len(frame):
        with pytest.raises(Malformed, match="too few to expand to"):
            unpack_columns("x", 0, packed[1:], [("u1", size_bytes)])


def test_a_reader_holds_no_more_than_the_column_that_is_asked_for():
    pieces = [np.arange(at, at + 65_536, dtype="<u4") for at in range(0, 64 * 65_536, 65_536)]
    packed = pack_columns(pieces)
    tracemalloc.start()
    try:
        reader = ColumnReader("x", 0, packed, 4 * 64 * 65_536)
        for piece in pieces:
            np.testing.assert_array_equal(reader.take("<u4", 65_536), piece)
        reader.expect_end()
        assert tracemalloc.get_traced_memory()[1] < 2 * 2**20
    finally:
        tracemalloc.stop()


def test_a_frame_that_wants_a_vast_window_is_refused():
    parameters = zstandard.ZstdCompressionParameters(window_log=24)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj(size=2**25)
    packed = compressor.compress(bytes(2**25)) + compressor.flush()
    reader = ColumnReader("x", 0, packed.rjust(2**19, b"\0"), 2**25)
    with pytest.raises(Malformed, match="cannot be expanded"):
        reader.take("u1", 2**16)


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
