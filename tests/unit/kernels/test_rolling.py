# SPDX-License-Identifier: Apache-2.0
"""Weak and strong sums against their definitions, the search in C against the one in Python, and its hard cases."""

from __future__ import annotations

import hashlib
import random
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltaimg.delta.rolling import build_index, whole_stretch
from deltaimg.errors import NativeError
from deltaimg.kernels import StrongKind, WeakKind, reference_rolling
from deltaimg.kernels.reference_rolling import RollingSum

native = pytest.importorskip("deltaimg.kernels.native")

KEY = bytes(range(32))
PAIRS = [
    (WeakKind.RABIN_KARP, StrongKind.BLAKE2B),
    (WeakKind.ROLLSUM, StrongKind.BLAKE2B),
    (WeakKind.PYRSYNC, StrongKind.MD5),
    (WeakKind.WIDE, StrongKind.BLAKE3),
]


def strong_sums(kind, data, block_bytes):
    if kind == StrongKind.BLAKE3:
        return native.digest_blocks(KEY, data, block_bytes)
    return (native.md5_blocks if kind == StrongKind.MD5 else native.blake2b_blocks)(data, block_bytes)


def make_index(weak_kind, strong_kind, old, block_bytes, **options):
    old = old[: len(old) // block_bytes * block_bytes]
    weaks = native.weak_sums(weak_kind, old, block_bytes)
    strongs = strong_sums(strong_kind, old, block_bytes)
    return build_index(weak_kind, strong_kind, weaks, strongs, block_bytes=block_bytes, key=KEY, **options)


def rebuild(old, block_bytes, new, matches):
    out, at = bytearray(), 0
    for position, block, count in matches.tolist():
        out += new[at:position] + old[block * block_bytes : (block + count) * block_bytes]
        at = position + count * block_bytes
    return bytes(out + new[at:])


@pytest.mark.parametrize("kind", WeakKind)
@given(data=st.binary(min_size=1, max_size=600), size=st.integers(1, 70))
@settings(max_examples=50, deadline=None)
def test_weak_sums_are_the_same_in_c_and_python(kind, data, size):
    data = (data * size)[: max(1, len(data) // size) * size]
    assert (native.weak_sums(kind, data, size) == reference_rolling.weak_sums(kind, data, size)).all()


@pytest.mark.parametrize("kind", WeakKind)
def test_a_sum_that_rolled_is_the_sum_from_scratch(kind):
    data = random.Random(1).randbytes(300)
    rolling = RollingSum(kind)
    rolling.fill(data[:40])
    for start in range(1, 260):
        rolling.drop(data[start - 1])
        rolling.add(data[start + 39])
        assert rolling.weak == native.weak_sums(kind, data[start : start + 40], 40)[0]
    while rolling.window_bytes > 1:
        rolling.drop(data[299 - rolling.window_bytes])
        if rolling.window_bytes:
            start = 299 - rolling.window_bytes
            assert rolling.weak == native.weak_sums(kind, data[start:299], rolling.window_bytes)[0]


@pytest.mark.parametrize("size", [1, 3, 55, 56, 63, 64, 65, 127, 128, 129, 4096])
def test_strong_sums_are_those_of_hashlib(size):
    data = random.Random(size).randbytes(21 * size)
    blocks = [data[i : i + size] for i in range(0, len(data), size)]
    md5 = [hashlib.md5(each, usedforsecurity=False).digest() for each in blocks]
    assert [each.tobytes() for each in native.md5_blocks(data, size)] == md5
    blake2b = [hashlib.blake2b(each, digest_size=32).digest() for each in blocks]
    assert [each.tobytes() for each in native.blake2b_blocks(data, size)] == blake2b


@pytest.mark.parametrize("kind", WeakKind)
def test_filters_are_the_same_in_c_and_python(kind):
    weaks = np.random.default_rng(3).integers(0, 2 ** (40 if kind == WeakKind.WIDE else 32), 500, dtype=np.uint64)
    for bits in (8, 13, 20):
        found = native.fill_filter(kind, weaks, bits)
        assert (found == reference_rolling.fill_filter(kind, weaks, bits)).all()
        assert found.any()


@st.composite
def edits(draw):
    rng = random.Random(draw(st.integers(0, 2**32)))
    alphabet = draw(st.sampled_from([b"\0", b"ab", bytes(range(256))]))
    old = bytes(rng.choice(alphabet) for _ in range(draw(st.integers(0, 3000))))
    new = bytearray(old)
    for _ in range(draw(st.integers(0, 6))):
        at, length = rng.randrange(len(new) + 1), rng.randrange(200)
        what = rng.randrange(3)
        if what == 0:
            new[at : at + length] = rng.randbytes(length)
        elif what == 1:
            del new[at : at + length]
        else:
            source = rng.randrange(len(old) + 1)
            new[at:at] = old[source : source + 5 * length]
    return old, bytes(new)


@pytest.mark.parametrize(("weak_kind", "strong_kind"), PAIRS, ids=lambda each: each.name.lower())
@given(pair=edits(), takes_last=st.booleans(), prefers_next=st.booleans(), strong_bytes=st.sampled_from([8, 16]))
@settings(max_examples=40, deadline=None)
def test_the_search_is_the_same_in_c_and_python(weak_kind, strong_kind, pair, takes_last, prefers_next, strong_bytes):
    size = 1024 if strong_kind == StrongKind.BLAKE3 else 48
    old, new = (each * (24 if size == 1024 else 1) for each in pair)
    old = old[: len(old) // size * size]
    index = build_index(
        weak_kind, strong_kind, native.weak_sums(weak_kind, old, size), strong_sums(strong_kind, old, size)[:, :strong_bytes],
        block_bytes=size, key=KEY, takes_last=takes_last, prefers_next=prefers_next,
    )  # fmt: skip
    half = len(new) // 2
    for stretches in (whole_stretch(len(new)), np.array([[0, half], [half, len(new)]], np.uint64)):
        found = native.match_blocks(index, new, stretches)
        if len(new) < 20_000:
            assert found.tolist() == reference_rolling.match_blocks(index, new, stretches).tolist()
        assert rebuild(old, size, new, found) == new


def test_more_matches_than_fit_in_one_call():
    old = random.Random(5).randbytes(64 * 5000)
    new = b"".join(old[64 * i : 64 * i + 64] for i in random.Random(6).sample(range(5000), 5000))
    found = native.match_blocks(make_index(*PAIRS[0], old, 64), new, whole_stretch(len(new)))
    assert int(found["count"].sum()) == 5000
    assert rebuild(old, 64, new, found) == new


def test_of_equal_blocks_that_which_continues_or_lies_there_is_taken():
    a, b = random.Random(7).randbytes(64), random.Random(8).randbytes(64)
    old = a + b + a + a + b
    index = make_index(*PAIRS[0], old, 64)
    assert native.match_blocks(index, old, whole_stretch(len(old))).tolist() == [(0, 0, 5)]
    assert native.match_blocks(index, a + b, whole_stretch(128), first_position=192).tolist() == [(0, 3, 2)]
    last = make_index(*PAIRS[0], old, 64, takes_last=True, prefers_next=False)
    assert native.match_blocks(last, old, whole_stretch(len(old))).tolist() == [(0, 3, 2), (128, 3, 1), (192, 3, 2)]


@pytest.mark.parametrize("case", ["zeros", "one-block", "period", "equal-weak", "one-weak-sum"])
def test_nothing_makes_the_search_slow(case):
    """A search in content that repeats, or that was made to share weak sums, takes time in proportion to its length."""
    size, count = 4096, 2000
    rng = random.Random(9)
    new = bytes(size * count)
    old = bytes(size * count)
    weak_kind, strong_kind = WeakKind.PYRSYNC, StrongKind.MD5
    if case == "one-block":
        old = rng.randbytes(size) * count
        new = old[1:]
    elif case == "period":
        old = rng.randbytes(17) * (size * count // 17)
        new = b"x" + old
    index = make_index(weak_kind, strong_kind, old, size)
    if case == "equal-weak":
        # Every window of new content has the weak sum of some old block, and none its content.
        strongs = np.frombuffer(rng.randbytes(16 * count), np.uint8).reshape(-1, 16)
        index = build_index(weak_kind, strong_kind, np.zeros(count, np.uint64), strongs, block_bytes=size)
    if case == "one-weak-sum":
        strongs = np.frombuffer(rng.randbytes(16 * 200_000), np.uint8).reshape(-1, 16)
        index = build_index(weak_kind, strong_kind, np.zeros(200_000, np.uint64), strongs, block_bytes=size)
    started = time.process_time()
    native.match_blocks(index, new, whole_stretch(len(new)))
    assert time.process_time() - started < 3


def test_what_contradicts_itself_is_refused():
    old = random.Random(1).randbytes(640)
    index = make_index(*PAIRS[0], old, 64)
    for stretches in (np.array([[0, 641]], np.uint64), np.array([[10, 5]], np.uint64)):
        with pytest.raises(NativeError):
            native.match_blocks(index, old, stretches)
    for function in (native.weak_sums, reference_rolling.weak_sums):
        with pytest.raises(NativeError):
            function(WeakKind.WIDE, old, 63)
    for function in (native.md5_blocks, reference_rolling.md5_blocks):
        with pytest.raises(NativeError):
            function(old, 0)
