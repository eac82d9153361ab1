# SPDX-License-Identifier: Apache-2.0
"""Arrays of no elements, whatever their shape, are as good as any: a backup may find no changed block."""

from __future__ import annotations

import os

import numpy as np
import pytest

from deltaimg.arrays import RANGE
from deltaimg.kernels import reference, reference_delta, reference_ranges, reference_rolling
from deltaimg.kernels.layout import WeakKind

native = pytest.importorskip("deltaimg.kernels.native", reason="the native core is not built")

EMPTY = [np.empty(shape, np.uint8) for shape in ((0,), (0, 16), (3, 0), (0, 4, 16))] + [np.empty((0, 2), np.uint32)]
KEY = bytes(32)
shapes = pytest.mark.parametrize("empty", EMPTY, ids=lambda array: f"{array.dtype}{array.shape}")


def twins(name):
    """Return a function in C and the same in Python."""
    modules = (reference, reference_rolling, reference_ranges, reference_delta)
    return [getattr(native, name), next(getattr(module, name) for module in modules if hasattr(module, name))]


@shapes
@pytest.mark.parametrize("name", ["digest_blocks", "blake2b_blocks", "md5_blocks", "weak_sums", "gather_blocks"])
def test_no_blocks_give_an_empty_result(name, empty):
    arguments = {
        "digest_blocks": (KEY, empty, 4096), "blake2b_blocks": (empty, 4096), "md5_blocks": (empty, 4096),
        "weak_sums": (WeakKind.WIDE, empty, 4096), "gather_blocks": (empty, 4096, np.empty(0, np.uint32)),
    }  # fmt: skip
    for function in twins(name):
        assert len(function(*arguments[name])) == 0


@shapes
def test_what_has_no_bytes_is_zero_equal_and_has_a_digest(empty):
    for is_zero, is_equal, digest in zip(*map(twins, ("is_zero", "is_equal", "digest_buffer")), strict=True):
        assert is_zero(empty)
        assert is_equal(empty, b"")
        assert not is_equal(empty, b"x")
        assert digest(empty, KEY) == digest(b"", KEY)


@shapes
def test_no_anchors_lie_in_nothing(empty):
    for function in twins("collect_anchors"):
        assert [len(found) for found in function(empty, 20)] == [0, 0]


@shapes
def test_no_ranges_are_read_into_and_written_from_nothing(empty):
    nothing = np.empty(0, RANGE)
    with open(os.devnull, "r+b") as file:
        for read, write in zip(twins("read_ranges"), twins("write_ranges"), strict=True):
            assert read(file.fileno(), nothing, empty) is None
            assert write(file.fileno(), nothing, empty, 4096) is None


@shapes
def test_a_delta_may_have_no_sources_or_make_no_content(empty):
    for encode, decode in zip(twins("encode_delta"), twins("decode_delta"), strict=True):
        for content, sources in ((empty, empty), (empty, b"source"), (b"content of some bytes", empty)):
            room, made = memoryview(bytearray(2000)), bytearray(memoryview(content).nbytes)
            parts = encode(content, sources, bytearray(1 << 21), room)
            decode(room[: sum(parts)], sources, memoryview(made))
            assert made == bytes(content)
