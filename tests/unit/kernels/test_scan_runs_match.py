# SPDX-License-Identifier: Apache-2.0
"""Scan, runs and match, in C and in Python, against the shortest thing that is surely right."""

from __future__ import annotations

import random

import numpy as np
import pytest

from deltaimg.arrays import RUN
from deltaimg.errors import NativeError
from deltaimg.kernels import reference
from deltaimg.kernels.layout import BlockStatus

native = pytest.importorskip("deltaimg.kernels.native", reason="the native core is not built")
both = pytest.mark.parametrize("kernels", [native, reference], ids=["native", "reference"])

KEY = bytes(range(32))
U32, U64 = 2**32 - 1, 2**64 - 1


def runs_of(*runs):
    return np.array(list(runs), RUN)


def refusal(function, status):
    return pytest.raises(NativeError, match=f"^{function}: {status}$")


# -- scan --------------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("block_bytes", [1024, 4096])
def test_every_status_against_every_kind_of_base(kernels, block_bytes):
    rng = random.Random(1)
    old = rng.randbytes(6 * block_bytes)
    table = np.concatenate([np.zeros((2, 16), np.uint8), kernels.digest_blocks(KEY, old, block_bytes)])
    zero, new = bytes(block_bytes), rng.randbytes(block_bytes)
    blocks = [
        (old[:block_bytes], 2, "SAME"), (old[block_bytes : 2 * block_bytes], 3, "SAME"), (old[:block_bytes], 3, "CHANGED"),
        (new, 4, "CHANGED"), (zero, 4, "ZERO_BLOCK"), (zero, 0, "ZERO_BLOCK"), (zero, 1, "ZERO_BLOCK"),
        (new, 0, "CHANGED"), (new, 1, "CHANGED"), (old[-block_bytes:], 7, "SAME"),
    ]  # fmt: skip
    data = b"".join(block for block, _, _ in blocks)
    digests, runs = kernels.scan_blocks(KEY, data, block_bytes, np.array([b[1] for b in blocks], np.uint32), table)
    assert (digests == kernels.digest_blocks(KEY, data, block_bytes)).all()
    assert [BlockStatus(s).name for _, count, s in runs.tolist() for _ in range(count)] == [b[2] for b in blocks]
    assert runs["first"].tolist() == [0, 2, 4, 7, 9]


@both
def test_scan_refuses_slots_and_lengths_that_do_not_fit(kernels):
    table = np.zeros((3, 16), np.uint8)
    with refusal("scan_blocks", "BAD_SLOT"):
        kernels.scan_blocks(KEY, bytes(2048), 1024, np.array([2, 3], np.uint32), table)
    with refusal("scan_blocks", "BAD_ARGUMENT"):
        kernels.scan_blocks(KEY, bytes(2048), 1024, np.array([2], np.uint32), table)
    digests, runs = kernels.scan_blocks(KEY, b"", 1024, np.array([], np.uint32), table)
    assert len(digests) == len(runs) == 0


@both
def test_zero_and_equal(kernels):
    for length in (0, 1, 63, 64, 65, 4096):
        assert kernels.is_zero(bytes(length))
        assert kernels.is_equal(bytes(length), bytearray(length))
        assert not kernels.is_equal(bytes(length), bytes(length + 1))
        if length:
            other = bytes(length - 1) + b"\1"
            assert not kernels.is_zero(other)
            assert not kernels.is_equal(bytes(length), other)


@both
def test_gather(kernels):
    data = random.Random(3).randbytes(10 * 512)
    indexes = np.array([3, 4, 5, 0, 9, 9, 2], np.uint32)
    expected = b"".join(data[i * 512 : (i + 1) * 512] for i in indexes.tolist())
    assert kernels.gather_blocks(data, 512, indexes).tobytes() == expected
    out = np.zeros(8 * 512, np.uint8)
    assert kernels.gather_blocks(data, 512, indexes, out).tobytes() == expected
    assert out.tobytes() == expected + bytes(512)
    assert not len(kernels.gather_blocks(data, 512, indexes[:0]))
    with refusal("gather_blocks", "BUFFER_TOO_SMALL"):
        kernels.gather_blocks(data, 512, indexes, out[:512])
    with refusal("gather_blocks", "BAD_ARGUMENT"):
        kernels.gather_blocks(data, 512, np.array([10], np.uint32))


# -- runs --------------------------------------------------------------------------------------------------------------


def make_runs(rng, space):
    runs, at = [], rng.randrange(5)
    while at < space:
        count = min(rng.randint(1, 6), space - at)
        runs.append((at, count, rng.randrange(9)))
        at += count + rng.choice([0, 0, 0, 1, 5])
    return runs_of(*runs)


def slots_by_block(runs):
    """The meaning of runs, spelled out."""
    return {
        first + i: slot if slot < 2 else slot + i for first, count, slot in runs.tolist() for i in range(count)
    }  # fmt: skip


def assert_merged(runs):
    for (first, count, slot), (next_first, _, next_slot) in zip(runs[:-1].tolist(), runs[1:].tolist(), strict=True):
        continued = slot if slot < 2 else slot + count
        is_kind = (slot < 2) == (next_slot < 2)
        assert first + count < next_first or not (is_kind and continued == next_slot)


@both
def test_runs_against_one_slot_a_block(kernels):
    rng = random.Random(4)
    for _ in range(300):
        base, over = make_runs(rng, 60), make_runs(rng, 60)
        under, above = slots_by_block(base), slots_by_block(over)
        laid = kernels.overlay_runs(base, over)
        assert slots_by_block(laid) == {**under, **above}
        assert_merged(laid)
        left = kernels.subtract_runs(over, base)
        assert slots_by_block(left) == {block: slot for block, slot in above.items() if under.get(block) != slot}
        assert_merged(left)
        first, count = rng.randrange(60), rng.randrange(70)
        expected = [under.get(block, 0) for block in range(first, first + count)]
        assert kernels.expand_runs(base, first, count).tolist() == expected


@both
@pytest.mark.parametrize(
    "bad",
    [
        [(0, 0, 0)], [(4, 2, 0), (5, 1, 1)], [(4, 2, 0), (0, 1, 1)], [(U64 - 1, 2, 0)], [(0, 2, U32)], [(0, U32, 3)],
    ],
)  # fmt: skip
def test_lists_that_are_none_are_refused(kernels, bad):
    good, bad = runs_of((0, 1, 5)), runs_of(*bad)
    for function in (kernels.overlay_runs, kernels.subtract_runs):
        for arguments in ((good, bad), (bad, good), (bad, bad)):
            with refusal(function.__name__, "BAD_RUNS"):
                function(*arguments)


@both
def test_expand_refuses_what_it_reads(kernels):
    with refusal("expand_runs", "BAD_RUNS"):
        kernels.expand_runs(runs_of((0, 2, U32)), 0, 4)
    with refusal("expand_runs", "BAD_RUNS"):
        kernels.expand_runs(runs_of((0, 4, 7), (2, 4, 7)), 0, 4)
    with refusal("expand_runs", "BAD_ARGUMENT"):
        kernels.expand_runs(runs_of(), U64, 1)


@both
def test_runs_at_the_ends_of_their_numbers(kernels):
    longest = runs_of((0, U32, 0), (U32, U32, 0))
    laid = kernels.overlay_runs(longest, runs_of((10, 1, 7)))
    assert laid.tolist() == [(0, 10, 0), (10, 1, 7), (11, U32, 0), (11 + U32, U32 - 11, 0)]
    assert kernels.overlay_runs(runs_of((0, U32 - 1, 0)), runs_of((U32 - 1, 3, 0))).tolist() == [
        (0, U32, 0),
        (U32, 2, 0),
    ]
    assert kernels.subtract_runs(runs_of((0, U32 - 1, 2)), runs_of((5, 1, 7))).tolist() == [(0, 5, 2), (6, U32 - 7, 8)]
    assert kernels.expand_runs(runs_of((U64 - 2, 2, 9)), U64 - 3, 3).tolist() == [0, 9, 10]


# -- match -------------------------------------------------------------------------------------------------------------


def make_digests(rng, count, kinds):
    """Some zero, some twice, some with one home in the table but other second halves."""
    alike = rng.randbytes(8)
    chosen = [rng.randrange(kinds) for _ in range(count)]
    rows = [
        bytes(16) if k == 0 else (alike if k % 4 == 1 else k.to_bytes(8, "big")) + k.to_bytes(8, "little")
        for k in chosen
    ]
    return np.frombuffer(b"".join(rows), np.uint8).reshape(count, 16)


@both
def test_match_against_a_dict(kernels):
    rng = random.Random(5)
    for _ in range(30):
        table = np.zeros(256, np.uint32)
        digests = np.zeros((222, 16), np.uint8)
        digests[2:40] = make_digests(rng, 38, 30)
        kernels.insert_slots(table, digests, 40, 2, 38)
        known = {}
        for slot in range(2, 40):
            known.setdefault(digests[slot].tobytes(), slot)
        known[bytes(16)] = 1
        count = 40
        for _ in range(2):
            wanted = make_digests(rng, 100, 120)
            slots, count = kernels.match_digests(table, digests, count, wanted)
            for digest, slot in zip(wanted, slots.tolist(), strict=True):
                assert known.setdefault(digest.tobytes(), slot) == slot
                assert slot == 1 or digests[slot].tobytes() == digest.tobytes()
        assert count == 40 + len({slot for slot in known.values() if slot >= 40})


@both
def test_match_refuses_what_does_not_fit(kernels):
    wanted = np.arange(1, 16 * 20 + 1, dtype=np.uint32).astype(np.uint8).reshape(20, 16)
    with refusal("match_digests", "BUFFER_TOO_SMALL"):
        kernels.match_digests(np.zeros(64, np.uint32), np.zeros((12, 16), np.uint8), 2, wanted)
    with refusal("match_digests", "TABLE_FULL"):
        kernels.match_digests(np.zeros(8, np.uint32), np.zeros((40, 16), np.uint8), 2, wanted)
    with refusal("match_digests", "BAD_ARGUMENT"):
        kernels.match_digests(np.zeros(9, np.uint32), np.zeros((40, 16), np.uint8), 2, wanted)
    with refusal("match_digests", "BAD_ARGUMENT"):
        kernels.match_digests(np.zeros(8, np.uint32), np.zeros((40, 16), np.uint8), 1, wanted)
    with refusal("match_digests", "BAD_SLOT"):
        kernels.match_digests(np.full(8, 9, np.uint32), np.zeros((40, 16), np.uint8), 5, wanted)
    digests = np.concatenate([np.zeros((2, 16), np.uint8), wanted])
    with refusal("insert_slots", "TABLE_FULL"):
        kernels.insert_slots(np.zeros(8, np.uint32), digests, 22, 2, 20)
    with refusal("insert_slots", "BAD_SLOT"):
        kernels.insert_slots(np.zeros(64, np.uint32), digests, 22, 2, 21)
    with refusal("insert_slots", "BAD_ARGUMENT"):
        kernels.insert_slots(np.zeros(63, np.uint32), digests, 22, 2, 20)


@both
def test_a_full_table_still_finds_what_it_holds(kernels):
    digests = np.zeros((10, 16), np.uint8)
    digests[2:] = np.arange(1, 129, dtype=np.uint8).reshape(8, 16)
    table = np.zeros(8, np.uint32)
    kernels.insert_slots(table, digests, 10, 2, 8)
    slots, count = kernels.match_digests(table, digests, 10, digests[::-1][:8].copy())
    assert (slots.tolist(), count) == (list(range(9, 1, -1)), 10)
