# SPDX-License-Identifier: Apache-2.0
"""`deltaimg.rsync` by itself: what it returns, what streams may do, what is refused.

`tests/interop` holds it against pyrsync2.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltaimg.errors import Malformed, UsageError
from deltaimg.rsync import blockchecksums, patchstream, rsyncdelta


def sums_of(data, size):
    return list(blockchecksums(io.BytesIO(data), size))


def delta_of(old, new, size, **options):
    return list(rsyncdelta(io.BytesIO(new), sums_of(old, size), size, **options))


def patch(old, delta, size):
    target = io.BytesIO()
    patchstream(io.BytesIO(old), target, delta, size)
    return target.getvalue()


class Dripping(io.RawIOBase):
    """A stream that returns, and takes, a few bytes at a time."""

    def __init__(self, content=b"", seed=1):
        self._content, self._rng = io.BytesIO(content), random.Random(seed)

    def read(self, length=-1):
        return self._content.read(self._rng.randint(1, min(length, 1000)))

    def seek(self, offset, whence=0):
        return self._content.seek(offset, whence)

    def write(self, data):
        return self._content.write(bytes(data[: self._rng.randint(1, 1000)]))

    def getvalue(self):
        return self._content.getvalue()


@st.composite
def edited(draw):
    """An old and a new content that share much, of few different bytes or of many."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    alphabet = draw(st.sampled_from([b"\0", b"ab", b"\0\1", bytes(range(256))]))
    old = bytes(rng.choice(alphabet) for _ in range(draw(st.integers(0, 700))))
    new = bytearray(old)
    for _ in range(draw(st.integers(0, 5))):
        at, length = rng.randrange(len(new) + 1), rng.randrange(60)
        match rng.randrange(3):
            case 0:
                new[at : at + length] = rng.randbytes(length)
            case 1:
                del new[at : at + length]
            case _:
                source = rng.randrange(len(old) + 1)
                new[at:at] = old[source : source + 4 * length]
    return old, bytes(new)


@given(pair=edited(), size=st.integers(1, 90), max_buffer=st.integers(1, 200))
@settings(max_examples=200, deadline=None)
def test_the_new_content_is_rebuilt(pair, size, max_buffer):
    old, new = pair
    delta = delta_of(old, new, size, max_buffer=max_buffer)
    assert patch(old, delta, size) == new
    literals = [each for each in delta if isinstance(each, bytes)]
    assert all(0 < len(each) <= max_buffer for each in literals[:-1])


@pytest.mark.parametrize("size", [700, 4096, 5_000_000])
def test_content_of_several_spans_is_rebuilt(size):
    rng = random.Random(size)
    old = rng.randbytes(21_000_001)
    new = old[:9_000_000] + b"inserted" + old[9_000_000:13_000_000] + rng.randbytes(3_000_000) + old[13_000_000:]
    delta = delta_of(old, new, size)
    assert patch(old, delta, size) == new
    brought = sum(len(each) for each in delta if isinstance(each, bytes))
    assert brought < 3_000_008 + 4 * size


def test_weak_sums_of_blocks_of_any_size_are_whole():
    # From 1.5 MiB on they pass 64 bits.
    block = b"\xff" * (3 << 20)
    total, total_of_totals = 255 * len(block), 255 * len(block) * (len(block) + 1) // 2
    assert sums_of(block, 1 << 22) == [(total_of_totals << 16 | total, hashlib.md5(block).digest())]
    assert total_of_totals << 16 > 2**64
    old = block + random.Random(1).randbytes(3 << 20)
    assert delta_of(old, b"x" + old, 3 << 20)[1:] == [0, 1]


def colliding_blocks(count):
    """Blocks of one weak sum: one byte more here and there, two less in the middle between."""
    for distance in range(1, count + 1):
        block = bytearray(b"m" * 256)
        block[128 - distance] += 1
        block[128 + distance] += 1
        block[128] -= 2
        yield bytes(block)


def test_blocks_of_one_weak_sum_are_all_found():
    blocks = list(colliding_blocks(100))
    sums = sums_of(b"".join(blocks), 256)
    assert len({weak for weak, _ in sums}) == 1
    assert delta_of(b"".join(blocks), b"".join(blocks), 256) == list(range(100))
    assert delta_of(b"".join(blocks), b"".join(reversed(blocks)), 256) == list(range(99, -1, -1))


def test_repeated_and_colliding_blocks_take_no_longer_than_others():
    rng = random.Random(2)
    hostile = b"".join(itertools.islice(itertools.cycle(colliding_blocks(127)), 20_000))
    for old, new in (
        (bytes(256) * 40_000, bytes(10_000_001)),
        (hostile, hostile[1:]),
        (hostile, bytes(5_000_000) + hostile),
        (rng.randbytes(256) * 40_000, b"x" + rng.randbytes(256) * 40_000),
    ):
        started = time.perf_counter()
        delta = delta_of(old, new, 256)
        assert time.perf_counter() - started < 5
        assert patch(old, delta, 256) == new


@pytest.mark.parametrize("size", [1, 64, 1000])
def test_streams_may_return_less_than_was_asked_for_and_take_less(size):
    rng = random.Random(3)
    old = rng.randbytes(50_001)
    new = old[:20_000] + b"more" + old[20_000:]
    sums = list(blockchecksums(Dripping(old), size))
    assert sums == sums_of(old, size)
    delta = list(rsyncdelta(Dripping(new), sums, size))
    assert delta == delta_of(old, new, size)
    target = Dripping()
    patchstream(Dripping(old), target, delta, size)
    assert target.getvalue() == new


def test_nothing_is_read_before_an_element_is_asked_for_and_no_more_than_some_spans():
    class Endless(io.RawIOBase):
        given = 0

        def read(self, length=-1):
            self.given += length
            return bytes(length)

    stream = Endless()
    delta = rsyncdelta(stream, sums_of(bytes(4096), 4096))
    assert stream.given == 0
    assert next(delta) == 0
    assert stream.given <= 8 << 20


def test_a_stream_that_is_not_ready_is_refused():
    class NotReady(io.RawIOBase):
        def read(self, length=-1):
            return None

    with pytest.raises(UsageError, match="nothing to read yet"):
        list(blockchecksums(NotReady()))


@pytest.mark.parametrize("bad", [0, -1, 4.0, "4096", None])
def test_sizes_below_one_are_refused(bad):
    for call in (
        lambda: list(blockchecksums(io.BytesIO(b"x"), bad)),
        lambda: list(rsyncdelta(io.BytesIO(b"x"), [], bad)),
        lambda: list(rsyncdelta(io.BytesIO(b"x"), [], 1, bad)),
        lambda: patchstream(io.BytesIO(b"x"), io.BytesIO(), [], bad),
    ):
        with pytest.raises(UsageError, match=r"(blocksize|max_buffer) is "):
            call()


MD5 = hashlib.md5(b"").digest()


@pytest.mark.parametrize(
    "bad",
    [None, 7, b"xy", (1,), (1, MD5, 2), ("1", MD5), (-1, MD5), (1, MD5[:15]), (1, MD5.hex()), (1.0, MD5), (1, None)],
)
def test_a_signature_of_something_else_is_refused(bad):
    with pytest.raises(Malformed, match="signature: block 1 has no weak sum and MD5") as caught:
        list(rsyncdelta(io.BytesIO(b"x"), [(0, MD5), bad], 512))
    assert caught.value.offset == 512


def test_signatures_of_any_numbers_do_no_harm():
    sums = [(0, MD5), (2**64, MD5), (2**200 + 5, bytearray(MD5)), (5, memoryview(MD5))]
    assert list(rsyncdelta(io.BytesIO(bytes(100)), sums, 64)) == [bytes(64), bytes(36)]
    assert list(rsyncdelta(io.BytesIO(b""), sums, 64)) == []


def repr_short(value):
    return f"{value.bit_length()} bits" if isinstance(value, int) else repr(value)


@pytest.mark.parametrize(
    "bad", [-1, 4, 5, 2**40, 2**56, 2**63, 2**20_000, "0", 1.0, None, True, [0], (0, 1), {}], ids=repr_short
)
def test_an_element_that_names_nothing_is_refused(bad, tmp_path):
    old = bytes(range(250)) + bytes(100)  # three blocks and a half
    (tmp_path / "old").write_bytes(old)
    for elements in ([b"new", 0, bad], [b"new", bad], [0, 1, 2, 3, bad], [bad]):
        with open(tmp_path / "old", "rb") as file:
            for stream in (file, io.BytesIO(old)):
                with pytest.raises(Malformed, match=r"^delta: ") as caught:
                    patchstream(stream, io.BytesIO(), elements, 100)
                assert caught.value.object_name == "delta"
                assert "\n" not in str(caught.value)


def test_the_short_last_block_may_stand_anywhere():
    old = bytes(range(250))
    assert patch(old, [2, 2, b"-", 2, 0, bytearray(b"+"), memoryview(b"*"), b"", 1], 100) == (
        old[200:] * 2 + b"-" + old[200:] + old[:100] + b"+*" + old[100:200]
    )
