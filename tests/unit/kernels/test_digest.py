# SPDX-License-Identifier: Apache-2.0
"""Digests: published vectors and the blake3 package, on every path of the native core and in Python."""

from __future__ import annotations

import functools
import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3

from deltaimg.errors import NativeError
from deltaimg.kernels import reference

native = pytest.importorskip("deltaimg.kernels.native", reason="the native core is not built")

VECTORS = json.loads((Path(__file__).parent / "data" / "blake3.json").read_text())
PATHS = native.find_paths()
KEY = bytes(range(32))
BLOCK_SIZES = [1024 << power for power in range(11)] + [3072, 5120, 7 * 1024, 100 * 1024]


def _implementations():
    yield pytest.param(reference, id="reference")
    for path in PATHS:
        yield pytest.param(_OnPath(path), id=path)


class _OnPath:
    """The native module with one digest path fixed."""

    def __init__(self, path):
        self.digest_buffer = functools.partial(native.digest_buffer, path=path)
        self.digest_blocks = functools.partial(native.digest_blocks, path=path)


every_path = pytest.mark.parametrize("kernels", list(_implementations()))


def expected_digests(data, block_bytes):
    blocks = [data[at : at + block_bytes] for at in range(0, len(data), block_bytes)]
    return [blake3(block, key=KEY).digest()[:16] if any(block) else bytes(16) for block in blocks]


def as_list(digests):
    return [row.tobytes() for row in digests]


@every_path
def test_published_vectors(kernels):
    for case in VECTORS["cases"]:
        data = bytes(i % 251 for i in range(case["input_len"]))
        assert kernels.digest_buffer(data).hex() == case["hash"]
        assert kernels.digest_buffer(data, VECTORS["key"].encode()).hex() == case["keyed_hash"]
        assert kernels.digest_buffer(data, VECTORS["key"].encode(), 16).hex() == case["keyed_hash"][:32]


def test_published_vectors_in_plain_python():
    for case in VECTORS["cases"]:
        if case["input_len"] <= 8193:
            data = bytes(i % 251 for i in range(case["input_len"]))
            assert reference.digest_in_python(data).hex() == case["hash"]
            assert reference.digest_in_python(data, VECTORS["key"].encode()).hex() == case["keyed_hash"]


@every_path
def test_buffers_of_lengths_around_every_boundary(kernels):
    data = random.Random(1).randbytes(1 << 20)
    lengths = {near for at in (0, 64, 1024, 4096, 8192, 65536, 1 << 20) for near in (at - 1, at, at + 1)}
    for length in sorted(lengths & set(range(len(data) + 1))):
        assert kernels.digest_buffer(data[:length], KEY) == blake3(data[:length], key=KEY).digest()


@every_path
@pytest.mark.parametrize("block_bytes", BLOCK_SIZES)
def test_blocks_of_every_size(kernels, block_bytes):
    most = max(3, min(1100, (2 << 20) // block_bytes + 1))
    data = random.Random(block_bytes).randbytes(most * block_bytes)
    for count in {0, 1, 2, 3, 7, 8, 9, 17, most} & set(range(most + 1)):
        part = data[: count * block_bytes]
        digests = kernels.digest_blocks(KEY, part, block_bytes)
        assert digests.shape == (count, 16)
        assert digests.dtype == np.uint8
        assert as_list(digests) == expected_digests(part, block_bytes)


@every_path
@pytest.mark.parametrize("block_bytes", [1024, 4096, 16384])
def test_zero_blocks_in_every_position(kernels, block_bytes):
    full = random.Random(2).randbytes(5 * block_bytes)
    for zeroes in range(2**5):
        data = bytearray(full)
        for i in range(5):
            if zeroes >> i & 1:
                data[i * block_bytes : (i + 1) * block_bytes] = bytes(block_bytes)
        assert as_list(kernels.digest_blocks(KEY, data, block_bytes)) == expected_digests(bytes(data), block_bytes)


@every_path
def test_one_bit_keeps_a_block_from_being_zero(kernels):
    for at in (0, 63, 64, 2047, 4095):
        data = bytearray(4096)
        data[at] = 128
        assert as_list(kernels.digest_blocks(KEY, data, 4096)) == [blake3(bytes(data), key=KEY).digest()[:16]]


@every_path
def test_any_buffer_will_do(kernels):
    data = os.urandom(8192)
    expected = expected_digests(data, 4096)
    for buffer in (bytearray(data), memoryview(data), np.frombuffer(data, np.uint8), np.frombuffer(data, np.uint64)):
        assert as_list(kernels.digest_blocks(KEY, buffer, 4096)) == expected
    shifted = bytearray(b"x" + data)
    assert as_list(kernels.digest_blocks(KEY, memoryview(shifted)[1:], 4096)) == expected


@every_path
@pytest.mark.parametrize(
    ("key", "bytes_", "block_bytes"),
    [(KEY[:-1], 4096, 4096), (KEY, 4097, 4096), (KEY, 4096, 0), (KEY, 1000, 1000), (KEY, 2 << 20, 2 << 20)],
)
def test_bad_blocks_are_refused(kernels, key, bytes_, block_bytes):
    with pytest.raises(NativeError, match="digest_blocks: BAD_ARGUMENT"):
        kernels.digest_blocks(key, bytes(bytes_), block_bytes)


@every_path
@pytest.mark.parametrize(("key", "bytes_", "out_bytes"), [(b"k", 1, 32), (KEY, (1 << 20) + 1, 32), (KEY, 1, 33)])
def test_bad_buffers_are_refused(kernels, key, bytes_, out_bytes):
    with pytest.raises(NativeError, match="digest_buffer: BAD_ARGUMENT"):
        kernels.digest_buffer(bytes(bytes_), key, out_bytes)


def test_a_path_that_gives_wrong_answers_is_passed_over(monkeypatch):
    honest = native.lib

    class Lying:
        def __getattr__(self, name):
            return getattr(honest, name)

        def dimg_digest_buffer(self, path, key, data, length, out, out_bytes):
            status = honest.dimg_digest_buffer(path, key, data, length, out, out_bytes)
            if path == native.PATHS[PATHS[0]]:
                out[5] ^= 1
            return status

    monkeypatch.setattr(native, "lib", Lying())
    assert native.find_paths() == PATHS[1:]
