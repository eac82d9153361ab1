# SPDX-License-Identifier: Apache-2.0
"""The native core and its Python twin give the same arrays and the same errors, whatever they are given."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltaimg.arrays import RUN
from deltaimg.errors import NativeError
from deltaimg.kernels import reference

native = pytest.importorskip("deltaimg.kernels.native", reason="the native core is not built")

U32, U64 = 2**32 - 1, 2**64 - 1
keys = st.binary(min_size=32, max_size=32)
seeds = st.integers(0, U32)


def outcome(function, *arguments):
    """What a call comes to: plain values that can be compared, or the error."""
    try:
        result = function(*arguments)
    except NativeError as error:
        return str(error)
    return [part.tolist() if isinstance(part, np.ndarray) else part for part in _parts(result)]


def _parts(result):
    return result if isinstance(result, tuple) else (result,)


def assert_twins(name, *arguments):
    assert outcome(getattr(native, name), *arguments) == outcome(getattr(reference, name), *arguments)


def make_image(seed, blocks, block_bytes):
    """Random blocks where `blocks` says so, else zero, else zero but for one byte."""
    rng = np.random.default_rng(seed)
    image = np.zeros((len(blocks), block_bytes), np.uint8)
    for i, kind in enumerate(blocks):
        if kind == "data":
            image[i] = rng.integers(0, 256, block_bytes, np.uint8)
        elif kind == "byte":
            image[i, rng.integers(block_bytes)] = 1
    return image.reshape(-1)


kinds = st.lists(st.sampled_from(["data", "zero", "byte"]), max_size=40)
block_sizes = st.sampled_from([1024, 2048, 3072, 4096, 5120, 16384])


@given(seeds, kinds, block_sizes, keys)
def test_digest_blocks(seed, blocks, block_bytes, key):
    assert_twins("digest_blocks", key, make_image(seed, blocks, block_bytes), block_bytes)


@given(st.binary(max_size=9000), st.none() | keys, st.integers(0, 33))
def test_digest_buffer(data, key, out_bytes):
    assert_twins("digest_buffer", data, key, out_bytes)


@given(seeds, kinds, block_sizes, keys, st.data())
def test_scan_blocks(seed, blocks, block_bytes, key, data):
    image = make_image(seed, blocks, block_bytes)
    table = np.concatenate([np.zeros((2, 16), np.uint8), reference.digest_blocks(key, image, block_bytes)])
    slots = [data.draw(st.sampled_from([0, 1, i + 2, i + 2, i + 2, len(table) - 1])) for i in range(len(blocks))]
    if data.draw(st.integers(0, 9)) == 0 and slots:
        slots[-1] = len(table)
    assert_twins("scan_blocks", key, image, block_bytes, np.array(slots, np.uint32), table)


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_is_zero_and_is_equal(a, b):
    assert_twins("is_zero", a)
    assert_twins("is_zero", bytes(len(a)))
    assert_twins("is_equal", a, b)
    assert_twins("is_equal", a, bytearray(a))


@given(st.integers(0, 20), st.integers(1, 40), st.lists(st.integers(0, 21), max_size=30))
def test_gather_blocks(block_count, block_bytes, indexes):
    image = np.arange(block_count * block_bytes).astype(np.uint8)
    assert_twins("gather_blocks", image, block_bytes, np.array(indexes, np.uint32))


@st.composite
def run_lists(draw):
    """Good lists: short runs and long ones, touching and apart, near block 0 or the last of all."""
    at = draw(st.sampled_from([0, 0, 0, U64 - 2000]))
    end = U64
    runs = []
    for gap, count, slot in draw(
        st.lists(
            st.tuples(
                st.sampled_from([0, 0, 0, 1, 3]),
                st.integers(1, 8) | st.sampled_from([U32, U32 - 1]),
                st.integers(0, 12) | st.sampled_from([U32, U32 - 7]),
            ),
            max_size=20,
        )
    ):
        if at + gap + count > end or (slot >= 2 and slot + count - 1 > U32):
            continue
        runs.append((at + gap, count, slot))
        at += gap + count
    return np.array(runs, RUN)


@st.composite
def any_lists(draw):
    """Mostly good lists, some with one number replaced."""
    runs = draw(run_lists())
    if len(runs) and draw(st.integers(0, 4)) == 0:
        field = draw(st.sampled_from(RUN.names))
        value = draw(st.sampled_from([0, 1, 5, U32, U64]))
        runs[field][draw(st.integers(0, len(runs) - 1))] = min(value, U64 if field == "first_block" else U32)
    return runs


@given(run_lists(), st.integers(0, 60), st.integers(0, 60))
def test_expand_runs(runs, first_block, block_count):
    assert_twins("expand_runs", runs, first_block, block_count)
    assert_twins("expand_runs", runs, U64 - 2000 + first_block, block_count)


@settings(max_examples=400)
@given(any_lists(), any_lists())
def test_overlay_and_subtract_runs(a, b):
    assert_twins("overlay_runs", a, b)
    assert_twins("subtract_runs", a, b)


@settings(max_examples=400)
@given(run_lists(), run_lists())
def test_what_is_left_laid_on_the_base_is_both(over, base):
    left = native.subtract_runs(over, base)
    assert native.overlay_runs(base, left).tolist() == native.overlay_runs(base, over).tolist()
    assert native.subtract_runs(over, over).tolist() == []


digest_rows = st.lists(st.integers(0, 30), max_size=60).map(
    lambda chosen: np.array([[k, *[0] * 7, k // 3, *[0] * 7] for k in chosen], np.uint8).reshape(-1, 16)
)


@settings(max_examples=200)
@given(digest_rows, st.lists(digest_rows, max_size=3), st.sampled_from([1, 8, 32, 64, 60]), st.integers(2, 80))
def test_insert_and_match(known, batches, table_size, capacity):
    outcomes = []
    for kernels in (native, reference):
        digests = np.zeros((max(capacity, len(known) + 2), 16), np.uint8)
        digests[2 : 2 + len(known)] = known
        table = np.zeros(table_size, np.uint32)
        count = 2 + len(known)
        steps = [outcome(kernels.insert_slots, table, digests, count, 0, count)]
        for wanted in batches:
            steps.append(outcome(kernels.match_digests, table, digests, count, wanted))
            if isinstance(steps[-1], str):
                break
            count = steps[-1][1]
        outcomes.append((steps, table.tolist(), digests.tolist()))
    assert outcomes[0] == outcomes[1]


@given(seeds, st.integers(0, 6000), st.sampled_from([0, 20, 25, 28, 31, 32]), st.integers(0, 40))
def test_collect_anchors(seed, length, shift, period):
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 256, length, np.uint8)
    if period:  # repetitive content is where anchors come too close
        data = np.resize(data[:period], length)
    assert_twins("collect_anchors", data, shift)


@given(seeds, st.integers(0, 300), st.sampled_from([1, 4, 5, 64]))
def test_anchor_tables(seed, count, buckets):
    rng = np.random.default_rng(seed)
    names = rng.integers(0, U64, count, np.uint64, endpoint=True)
    names[::7] &= np.uint64(U32)  # many in one bucket
    slots = rng.integers(0, 2000, count, np.uint32)
    tables = [np.zeros(8 * buckets, np.uint64) for _ in range(2)]
    twice = np.concatenate((names, names[::3]))
    for table, kernels in zip(tables, (native, reference), strict=True):
        outcome(kernels.insert_anchors, table, twice, np.concatenate((slots, slots[::3][::-1])))
    assert np.array_equal(*tables)
    asked = np.concatenate((names, rng.integers(0, U64, 50, np.uint64)))
    assert outcome(native.find_anchors, tables[0], asked) == outcome(reference.find_anchors, tables[0], asked)


@given(seeds, st.integers(0, 5000))
def test_anchors_follow_content(seed, moved_by):
    """What makes an anchor is its bytes: content that moved has the same names."""
    rng = np.random.default_rng(seed)
    content = rng.integers(0, 256, 20000, np.uint8)
    names, positions = native.collect_anchors(content, 25)
    moved, moved_positions = native.collect_anchors(
        np.concatenate((rng.integers(0, 256, moved_by, np.uint8), content)), 25
    )
    assert set(names[1:].tolist()) <= set(moved.tolist())  # the first may be too near to one of the new bytes
    shared = np.isin(moved, names)
    assert set((moved_positions[shared] - np.uint32(moved_by)).tolist()) <= set(positions.tolist())
