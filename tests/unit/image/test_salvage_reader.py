# SPDX-License-Identifier: Apache-2.0
"""Reading around unreadable sectors: which bytes are lost, that all others are read, and when the reader gives up."""

from __future__ import annotations

import errno
import mmap
import os
import random
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from deltaimg.arrays import RANGE
from deltaimg.errors import ImageError
from deltaimg.image.open_source import open_source
from deltaimg.image.reader import ReadFailure
from deltaimg.image.salvage_reader import ExtentSet, SalvageReader, TooMuchUnreadable
from deltaimg.model import KIB, MIB, Extent
from tests.support.components import loop_device
from tests.support.devices import failing_file


class FailingReader:
    """Reads bytes, of which some extents fail, whole calls or from the first bad granule on; counts the failures."""

    def __init__(self, content: bytes, bad: list[tuple[int, int]], *, names_place: bool) -> None:
        self.content, self.bad, self._names_place = content, bad, names_place
        self.failures = 0

    def read_into(self, offset: int, buffer: memoryview) -> int:
        end = min(offset + len(buffer), len(self.content))
        hit = min((max(start, offset) for start, stop in self.bad if start < end and offset < stop), default=None)
        good = end if hit is None else hit if self._names_place else offset
        buffer[: max(0, good - offset)] = self.content[offset:good]
        if hit is not None:
            self.failures += 1
            raise ReadFailure(good, errno.EIO)
        return max(0, end - offset)

    def reread(self, ranges: np.ndarray, out: memoryview) -> None:
        for offset, length, start in ranges.tolist():
            self.read_into(offset, out[start : start + length])


def in_pairs(extents: tuple[Extent, ...]) -> list[tuple[int, int]]:
    return [(extent.start, extent.end) for extent in extents]


def make(reader: FailingReader, granule_bytes: int = 512, max_extents: int = 100) -> SalvageReader:
    size_bytes = len(reader.content)
    return SalvageReader(reader, reader, size_bytes=size_bytes, granule_bytes=granule_bytes, max_extents=max_extents)


@pytest.mark.parametrize("names_place", [True, False])
@pytest.mark.parametrize("granule_bytes", [512, 4096])
def test_what_is_lost_is_the_granules_that_fail_and_nothing_else(
    seed: int, names_place: bool, granule_bytes: int
) -> None:
    chance = random.Random(seed)
    for _ in range(100):
        content = chance.randbytes(chance.randrange(1, 300_000))
        starts = [
            chance.randrange(len(content)) // granule_bytes * granule_bytes for _ in range(chance.randrange(1, 6))
        ]
        bad = [(start, min(start + granule_bytes * chance.choice([1, 2, 5]), len(content))) for start in starts]
        reader = FailingReader(content, bad, names_place=names_place)
        salvage = make(reader, granule_bytes)
        buffer = memoryview(bytearray(b"?" * 65_536))
        made = b""
        while len(made) < len(content):
            got = salvage.read_into(len(made), buffer)
            made += buffer[:got]
            assert got == min(len(buffer), len(content) - (len(made) - got))
        expected = bytearray(content)
        is_lost = np.zeros(len(content), np.bool_)
        for start, end in bad:
            is_lost[start:end] = True
        for at in np.flatnonzero(is_lost).tolist():
            expected[at] = 0
        found = np.zeros(len(content), np.bool_)
        for start, end in in_pairs(salvage.unreadable):
            found[start:end] = True
            assert start < end <= len(content)
        assert made == expected
        assert (found == is_lost).all()


def test_a_bad_sector_costs_few_reads_that_fail() -> None:
    """Each of them may take a disk many seconds."""
    content = os.urandom(4 * MIB)
    reader = FailingReader(content, [(MIB, MIB + 512)], names_place=False)
    buffer = memoryview(bytearray(4 * MIB))
    assert make(reader).read_into(0, buffer) == 4 * MIB
    assert reader.failures <= 20
    assert bytes(buffer) == content[:MIB] + bytes(512) + content[MIB + 512 :]


def test_other_failures_are_not_read_around() -> None:
    class GoneReader(FailingReader):
        def read_into(self, offset: int, buffer: memoryview) -> int:
            raise ReadFailure(offset, errno.ENXIO)

    with pytest.raises(ReadFailure):
        make(GoneReader(bytes(9000), [], names_place=True)).read_into(0, memoryview(bytearray(9000)))


def test_too_many_places_or_bytes_are_given_up() -> None:
    content = bytes(MIB)
    bad = [(start, start + 512) for start in range(0, MIB, 4096)]
    with pytest.raises(TooMuchUnreadable):
        make(FailingReader(content, bad, names_place=True)).read_into(0, memoryview(bytearray(MIB)))

    class Zeros(bytes):
        """A gigabyte that takes no memory."""

        def __len__(self) -> int:
            return 1 << 30

    reader = FailingReader(Zeros(), [(0, 1 << 30)], names_place=True)
    salvage = make(reader, granule_bytes=1 << 20)
    buffer = memoryview(mmap.mmap(-1, 32 * MIB))
    is_given_up = False
    for start in range(0, 1 << 30, len(buffer)):
        try:
            salvage.read_into(start, buffer)
        except TooMuchUnreadable:
            is_given_up = True
            break
    assert is_given_up
    ((start, end),) = in_pairs(salvage.unreadable)
    assert (1 << 30) // 10 <= end - start <= (1 << 30) // 10 + 2 * MIB


def test_a_set_of_extents_joins_what_meets(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(50):
        extents, covered = ExtentSet(), np.zeros(300, np.bool_)
        for _ in range(40):
            start = chance.randrange(290)
            end = start + chance.randrange(1, 10)
            extents.add(start, end)
            covered[start:end] = True
        edges = np.flatnonzero(np.diff(np.concatenate(([False], covered, [False])).astype(np.int8))).reshape(-1, 2)
        assert in_pairs(extents.to_tuple()) == list(map(tuple, edges.tolist()))
        assert extents.total_bytes == int(covered.sum())
        assert len(extents) == len(edges)


# -- real failures -----------------------------------------------------------------------------------------------------

BAD = [(64 * KIB, 64 * KIB + 512), (MIB - 512, MIB + 4096), (3 * MIB - 1024, 3 * MIB)]


@pytest.mark.parametrize("is_direct", [False, True])
@pytest.mark.parametrize("kind", ["file", "device 512", "device 4096"])
def test_a_failing_disk_is_read_around_sector_by_sector(tmp_path: Path, kind: str, is_direct: bool) -> None:
    content = os.urandom(3 * MIB)
    (tmp_path / "content").write_bytes(content)
    with ExitStack() as stack:
        path: str | Path = stack.enter_context(failing_file(tmp_path / "content", tmp_path / "fuse", BAD))
        sector_bytes = 512
        if kind != "file":
            sector_bytes = int(kind.split()[1])
            path = stack.enter_context(loop_device(Path(path), sector_bytes=sector_bytes))
        source = open_source(str(path), is_direct=is_direct)
        stack.callback(source.close)
        with pytest.raises(ImageError, match=r"cannot be read at byte \d+: Input/output error") as caught:
            source.read_into(0, memoryview(mmap.mmap(-1, 3 * MIB)))
        assert "--on-read-error zero" in str(caught.value.hint)
        source = open_source(str(path), is_direct=is_direct, is_salvaging=True)
        stack.callback(source.close)
        memory = memoryview(mmap.mmap(-1, 3 * MIB))
        assert source.read_into(0, memory) == 3 * MIB
        lost_bytes = sum(extent.length for extent in source.unreadable)
        assert all(
            any(start <= first and last <= end for start, end in in_pairs(source.unreadable)) for first, last in BAD
        )
        # FUSE reads whole pages where it goes through the cache.
        assert lost_bytes <= sum(end - start for start, end in BAD) + (0 if sector_bytes == 512 else 8192) + 3 * 4096
        expected = bytearray(content)
        for start, end in in_pairs(source.unreadable):
            expected[start:end] = bytes(end - start)
        assert bytes(memory) == expected
        out = np.empty(8192, np.uint8)
        source.reread(np.array([(MIB, 4096, 0), (2 * MIB, 4096, 4096)], RANGE), out.data)
        assert out.tobytes() == bytes(expected[MIB : MIB + 4096] + expected[2 * MIB : 2 * MIB + 4096])
