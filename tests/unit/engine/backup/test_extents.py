# SPDX-License-Identifier: Apache-2.0
"""What a backup makes of extents: it reads data, and takes holes, zeros, free and unchanged extents as reported."""

from __future__ import annotations

import numpy as np

from deltaimg.engine.backup.run import back_up
from deltaimg.format.manifest import Manifest
from deltaimg.image.extents import DATA, FREE, HOLE, UNCHANGED, ZERO, Extents, ExtentStatus
from deltaimg.model import MIB
from deltaimg.options.backup import BackupOptions
from deltaimg.repo.repository import Repository
from tests.support.images import SyntheticImage, SyntheticSource
from tests.support.repositories import assert_restores, make_repository

SIZE_BYTES = 10 * MIB + 512
BOUNDS = [0, 2 * MIB, 4 * MIB, 6 * MIB, 8 * MIB, SIZE_BYTES]


class TrackedSource(SyntheticSource):
    """A source that reports a status for each fifth of its image, and refuses to be read where it need not be."""

    def __init__(self, image: SyntheticImage, *statuses: ExtentStatus) -> None:
        super().__init__(image)
        starts = np.array(BOUNDS[:-1], np.int64)
        self._extents = Extents(starts, np.array(statuses, np.uint8), image.size_bytes)
        self.read_bytes = 0

    def read_into(self, offset: int, buffer: memoryview) -> int:
        got = super().read_into(offset, buffer)
        self.read_bytes += got
        return got


def make_image(seed: int) -> SyntheticImage:
    image = SyntheticImage(SIZE_BYTES, seed=seed)
    image.write_random(0, SIZE_BYTES)
    return image


def run(repository: Repository, source: SyntheticSource) -> Manifest:
    return back_up(repository, source, "vm1", BackupOptions(workers=2))


def test_only_data_is_read_and_the_map_has_the_rest_as_reported() -> None:
    repository, first, second = make_repository(), make_image(1), make_image(2)
    run(repository, SyntheticSource(first))
    manifest = run(repository, TrackedSource(second, DATA, HOLE, ZERO, FREE, UNCHANGED))
    expected = bytearray(second.content)
    expected[2 * MIB : 8 * MIB] = bytes(6 * MIB)
    expected[8 * MIB :] = first.content[8 * MIB :]
    assert manifest.statistics.read_bytes == 2 * MIB
    assert manifest.statistics.allocated_bytes == 4 * MIB + 512
    assert_restores(repository, manifest, expected)


def test_without_a_base_nothing_is_taken_as_unchanged() -> None:
    repository, image = make_repository(), make_image(3)
    manifest = run(repository, TrackedSource(image, *[UNCHANGED] * 5))
    assert manifest.statistics.read_bytes == SIZE_BYTES
    assert_restores(repository, manifest, image.content)


def test_an_image_that_grew_is_read_where_its_base_ends() -> None:
    repository, image = make_repository(), make_image(4)
    small = SyntheticImage(3 * MIB + 512, seed=4)
    small.write(0, bytes(image.content[: small.size_bytes]))
    run(repository, SyntheticSource(small))
    manifest = run(repository, TrackedSource(image, *[UNCHANGED] * 5))
    assert_restores(repository, manifest, image.content)
    assert manifest.statistics.read_bytes == SIZE_BYTES - 3 * MIB
