# SPDX-License-Identifier: Apache-2.0
"""Reads of a snapshot at any offset: any size, any buffer, any thread; extents without a gap; damage."""

from __future__ import annotations

import mmap
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from deltaimg.engine.content.reader import SnapshotReader
from deltaimg.engine.content.snapshot import SnapshotContent
from deltaimg.errors import ContentDamaged, UsageError
from deltaimg.image.extents import ExtentStatus, ImageExtent
from deltaimg.model import KIB, MIB
from deltaimg.repo.index import load_index
from deltaimg.repo.repository import Repository
from deltaimg.store.memory import MemoryStore
from tests.support.flips import flip_object
from tests.support.images import SyntheticImage
from tests.support.repositories import back_up_image, make_repository

SIZE_BYTES = 6 * MIB + 2560
DATA, HOLE, ZERO = ExtentStatus.DATA, ExtentStatus.HOLE, ExtentStatus.ZERO


@pytest.fixture(scope="module")
def image() -> SyntheticImage:
    """Two stretches of data with holes and zeros between them, and a last block that is part filled."""
    image = SyntheticImage(SIZE_BYTES, seed=5)
    image.write_random(0, MIB)
    image.zero(MIB, 64 * KIB)
    image.write_random(4 * MIB, MIB + 8 * KIB)
    image.write_random(6 * MIB, 2560)
    return image


@pytest.fixture(scope="module")
def repository(image: SyntheticImage) -> Repository:
    """Two snapshots: a full one, and the image with changes that make deltas."""
    repository = make_repository()
    back_up_image(repository, image)
    for offset in range(100, MIB, 200 * KIB):
        image.write(offset, b"changed")
    return repository


@pytest.fixture(scope="module")
def reader(repository: Repository, image: SyntheticImage) -> SnapshotReader:
    return SnapshotContent(repository, back_up_image(repository, image), load_index(repository)).make_reader(
        cache_bytes=MIB
    )


def test_reads_of_any_size_at_any_offset_fill_a_dirty_buffer(reader: SnapshotReader, image: SyntheticImage) -> None:
    rng = random.Random(7)
    reads = [(rng.randrange(SIZE_BYTES), int(2 ** rng.uniform(0, 21))) for _ in range(200)]
    for offset, length in [(0, SIZE_BYTES), (SIZE_BYTES - 1, 1), *reads]:
        buffer = bytearray(b"\xaa" * length)
        expected = bytes(image.content[offset : offset + length])
        assert reader.read_into(offset, buffer) == len(expected)
        assert buffer[: len(expected)] == expected, (offset, length)
        assert buffer[len(expected) :] == b"\xaa" * (length - len(expected)), "nothing is written past the image"


@pytest.mark.parametrize(
    "make_buffer", [bytearray, lambda size: mmap.mmap(-1, size), lambda size: np.empty((size // 8, 2), "<u4")]
)
def test_any_writable_buffer_can_be_filled(
    make_buffer: Callable[[int], bytearray], reader: SnapshotReader, image: SyntheticImage
) -> None:
    buffer = make_buffer(8192)
    assert reader.read_into(4096, buffer) == 8192
    assert bytes(memoryview(buffer).cast("B")) == image.content[4096 : 4096 + 8192]


def test_what_cannot_be_read_into_is_refused(reader: SnapshotReader) -> None:
    for buffer in (bytes(10), memoryview(bytearray(20))[::2], 7):
        with pytest.raises(UsageError, match=r"cannot read into"):
            reader.read_into(0, buffer)  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        reader.read_into(-1, bytearray(10))
    with pytest.raises(UsageError):
        reader.read(0, -1)


def test_nothing_is_read_at_the_end_and_beyond(reader: SnapshotReader) -> None:
    for offset in (SIZE_BYTES, SIZE_BYTES + 1, 2**62):
        assert reader.read_into(offset, bytearray(10)) == 0
        assert reader.read(offset, 10) == b""
    assert reader.read_into(0, bytearray()) == 0


def test_many_threads_may_read_at_once(reader: SnapshotReader, image: SyntheticImage) -> None:
    def read(seed: int) -> bool:
        rng = random.Random(seed)
        buffer = bytearray(64 * KIB)
        for _ in range(25):
            offset = rng.randrange(SIZE_BYTES - len(buffer))
            reader.read_into(offset, buffer)
            if buffer != image.content[offset : offset + len(buffer)]:
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(16)))


def test_extents_are_those_of_the_image(reader: SnapshotReader) -> None:
    assert list(reader.extents()) == [
        ImageExtent(0, MIB, DATA),
        ImageExtent(MIB, MIB + 64 * KIB, ZERO),
        ImageExtent(MIB + 64 * KIB, 4 * MIB, HOLE),
        ImageExtent(4 * MIB, 5 * MIB + 8 * KIB, DATA),
        ImageExtent(5 * MIB + 8 * KIB, 6 * MIB, HOLE),
        ImageExtent(6 * MIB, SIZE_BYTES, DATA),
    ]


def test_extents_of_a_part_begin_and_end_with_it(reader: SnapshotReader) -> None:
    whole = list(reader.extents())
    rng = random.Random(8)
    for _ in range(100):
        start = rng.randrange(SIZE_BYTES)
        end = rng.randrange(start, SIZE_BYTES + MIB)
        expected = [
            ImageExtent(max(each.start, start), min(each.end, end), each.status)
            for each in whole
            if each.start < end and each.end > start
        ]
        assert list(reader.extents(start, end)) == [each for each in expected if each.length > 0]
    assert list(reader.extents(SIZE_BYTES)) == []


@pytest.mark.parametrize(("start", "end"), [(-1, 10), (10, 9)])
def test_extents_of_no_part_are_refused(start: int, end: int, reader: SnapshotReader) -> None:
    with pytest.raises(UsageError):
        reader.extents(start, end)


def test_damage_is_named_and_the_rest_is_still_read() -> None:
    repository, image = make_repository(), SyntheticImage(4 * MIB, seed=9)
    image.write_random(0, 4 * MIB)
    manifest = back_up_image(repository, image)
    store = repository.objects.store
    assert isinstance(store, MemoryStore)
    name = next(name for name in store.objects if name.startswith("packs/"))
    flip_object(store, name)
    reader = SnapshotContent(repository, manifest, load_index(repository)).make_reader()
    with pytest.raises(ContentDamaged) as caught:
        reader.read_into(0, bytearray(4 * MIB))
    damaged = caught.value.damage[0]
    found, damage = reader.read_what_is_left(0, 4 * MIB)
    assert damaged.start in range(damage[0].start, damage[0].end)
    expected = bytearray(image.content)
    for each in damage:
        expected[each.start : each.end] = bytes(each.length)
    assert found == expected
    assert reader.read(0, damage[0].start) == image.content[: damage[0].start]
