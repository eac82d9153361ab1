# SPDX-License-Identifier: Apache-2.0
"""Delta sources are read from the image where it still has them, from the repository where it has not."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from deltaimg.arrays import Ranges
from deltaimg.engine.backup.run import back_up
from deltaimg.model import KIB, MIB
from deltaimg.options.backup import BackupOptions
from tests.support.clock import FixedClock
from tests.support.images import SyntheticImage, SyntheticSource, make_incompressible_image
from tests.support.repositories import assert_restores, back_up_image, make_repository

CHANGED_BYTES = 2 * MIB
"""Of four: what is stored while the scan goes on, and at its end."""


class CountingSource(SyntheticSource):
    """Counts what is read again."""

    reread_bytes = 0

    def reread(self, ranges: Ranges, out: memoryview) -> None:
        self.reread_bytes += int(ranges["length"].sum())
        super().reread(ranges, out)


def change_a_little(image: SyntheticImage, seed: int) -> None:
    """Change a few bytes in each block of the second half."""
    chance = random.Random(seed)
    for offset in range(image.size_bytes - CHANGED_BYTES, image.size_bytes, 4096):
        image.write(offset + chance.randrange(4000), b"a few bytes")


@pytest.mark.parametrize("seed", [1, 2])
def test_what_the_scan_found_changed_is_not_read_again(seed: int) -> None:
    repository, image = make_repository(), make_incompressible_image(4 * MIB, seed=seed)
    back_up_image(repository, image)
    change_a_little(image, seed)
    source = CountingSource(image)
    options = BackupOptions(workers=2, max_read_amplification=100.0)
    manifest = back_up(repository, source, "vm1", options, clock=FixedClock())
    assert manifest.statistics.stored_bytes < CHANGED_BYTES // 10
    sample_bytes = 512 * KIB  # is read again at the end, to notice a writer
    assert source.reread_bytes <= sample_bytes, "sources were looked for where the image has other content now"
    assert_restores(repository, manifest, image.content)


def test_what_turned_into_zeroes_or_a_hole_is_still_a_source(tmp_path: Path) -> None:
    repository, image = make_repository(), make_incompressible_image(4 * MIB, seed=3)
    back_up_image(repository, image, cache_folder=str(tmp_path))
    image.write(0, image.content[3 * MIB : 3 * MIB + 512 * KIB])
    for offset in range(0, 512 * KIB, 4096):
        image.write(offset + 100, b"a few bytes")
    image.zero(3 * MIB, 256 * KIB)
    image.punch(3 * MIB + 256 * KIB, 256 * KIB)
    manifest = back_up_image(repository, image, cache_folder=str(tmp_path))
    assert manifest.statistics.stored_bytes < 100 * KIB
    assert_restores(repository, manifest, image.content)
