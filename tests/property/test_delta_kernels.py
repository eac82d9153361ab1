# SPDX-License-Identifier: Apache-2.0
"""Deltas in C and in Python: the same bodies, the same content, the same refusals, whatever they are given."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltaimg.errors import NativeError
from deltaimg.kernels import reference_delta
from deltaimg.kernels.layout import MAX_DELTA_BYTES

native = pytest.importorskip("deltaimg.kernels.native", reason="the native core is not built")

TWINS = (native, reference_delta)
PIECES = ("noise", "one byte", "moved", "moved and changed", "counted up", "rows")


def make_bytes(seed, pieces):
    """Bytes that resemble each other: each piece is new, or made from what is there already."""
    chance = random.Random(seed)
    made = bytearray()
    for kind, length in pieces:
        start = chance.randrange(len(made)) if made else 0
        moved = bytes(made[start : start + length])
        if kind == "noise" or not made:
            made += chance.randbytes(length)
        elif kind == "one byte":
            made += bytes([chance.randrange(256)]) * length
        elif kind == "moved":
            made += moved
        elif kind == "moved and changed":
            made += bytes(byte + (chance.randrange(9) == 0) & 255 for byte in moved)
        elif kind == "counted up":
            made += bytes((byte + 1) & 255 if at % 12 == 0 else byte for at, byte in enumerate(moved))
        else:
            row = chance.randbytes(16)
            made += b"".join(number.to_bytes(4, "little") + row for number in range(length // 20))
    return bytes(made)


contents = st.builds(
    make_bytes,
    st.integers(0, 2**32),
    st.lists(st.tuples(st.sampled_from(PIECES), st.integers(0, 40) | st.integers(0, 2000)), max_size=8),
)


def encode(kernels, content, sources):
    work = bytearray(kernels.delta_work_bytes(len(content)))
    room = memoryview(bytearray(kernels.delta_bound(len(content))))
    parts = kernels.encode_delta(content, sources, work, room)
    return parts, bytes(room[: sum(parts)])


def decode(kernels, body, sources, content_bytes):
    """The content, or the status of the refusal."""
    out = bytearray(content_bytes)
    try:
        kernels.decode_delta(body, sources, memoryview(out))
    except NativeError as error:
        return error.status
    return bytes(out)


@settings(max_examples=200)
@given(contents, st.integers(0, 100))
def test_bodies_are_the_same_and_give_the_content_back(both, share):
    at = len(both) * share // 100
    sources, content = both[:at], both[at:]
    parts, body = encode(native, content, sources)
    assert (parts, body) == encode(reference_delta, content, sources)
    assert len(parts) == 5
    assert len(body) <= len(content) * 33 // 32 + 32
    for kernels in TWINS:
        assert decode(kernels, body, sources, len(content)) == content


@settings(max_examples=200)
@given(contents, st.integers(0, 100), st.data())
def test_a_damaged_body_is_refused_alike_or_makes_the_same(both, share, data):
    at = len(both) * share // 100
    sources, content = both[:at], both[at:]
    body = bytearray(encode(native, content, sources)[1])
    for _ in range(data.draw(st.integers(0, 3))):
        body[data.draw(st.integers(0, min(len(body), 40) - 1) | st.integers(0, len(body) - 1))] = data.draw(
            st.integers(0, 255)
        )
    del body[data.draw(st.just(len(body)) | st.integers(0, len(body))) :]
    content_bytes = data.draw(st.just(len(content)) | st.integers(0, len(content) + 20))
    fewer = data.draw(st.just(0) | st.integers(0, len(sources)))
    outcomes = [decode(kernels, bytes(body), sources[fewer:], content_bytes) for kernels in TWINS]
    assert outcomes[0] == outcomes[1]


@settings(max_examples=200)
@given(contents, st.integers(0, 100), st.sampled_from([1, 16, 64, 512]))
def test_blocks_that_a_delta_needs_nothing_of_may_hold_anything(both, share, block_bytes):
    at = len(both) * share // 100
    sources, content = both[:at], both[at:]
    body = encode(native, content, sources)[1]
    used = native.count_delta_use(body, len(sources), len(content), block_bytes)
    twin = reference_delta.count_delta_use(body, len(sources), len(content), block_bytes)
    assert used.tolist() == twin.tolist()
    assert used.sum() <= len(content)
    others = bytearray(sources)
    for number in np.flatnonzero(used == 0).tolist():
        for place in range(number * block_bytes, min(len(others), (number + 1) * block_bytes)):
            others[place] ^= 255
    assert decode(native, body, bytes(others), len(content)) == content


@given(st.binary(max_size=60), st.binary(max_size=20), st.integers(0, 60))
def test_a_body_from_nowhere_is_refused_alike_or_makes_the_same(body, sources, content_bytes):
    assert decode(native, body, sources, content_bytes) == decode(reference_delta, body, sources, content_bytes)


def test_more_than_eight_mib_take_wider_places():
    chance = np.random.default_rng(7)
    sources = chance.integers(0, 256, (8 << 20) + 5000, np.uint8).tobytes()
    content = sources[-3000:] + b"new" + sources[:2000]
    parts, body = encode(native, content, sources)
    assert parts[1] == 2 * 4
    for kernels in TWINS:
        assert decode(kernels, body, sources, len(content)) == content


@pytest.mark.parametrize("kernels", TWINS, ids=["native", "reference"])
def test_what_is_too_large_or_has_too_little_room_is_refused(kernels):
    half, work = bytes(MAX_DELTA_BYTES // 2 + 1), bytearray(kernels.delta_work_bytes(8))
    room = memoryview(bytearray(kernels.delta_bound(8)))
    with pytest.raises(NativeError, match="BAD_ARGUMENT"):
        kernels.encode_delta(half, half, work, room)
    with pytest.raises(NativeError, match="BAD_ARGUMENT"):
        kernels.decode_delta(b"\0", half, memoryview(bytearray(half)))
    for short_work, short_room in ((work[:-1], room), (work, room[:-1])):
        with pytest.raises(NativeError, match="BUFFER_TOO_SMALL"):
            kernels.encode_delta(bytes(8), b"", short_work, short_room)
