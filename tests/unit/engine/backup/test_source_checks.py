# SPDX-License-Identifier: Apache-2.0
"""What a second look at a sample of the source finds, and that it finds nothing where nothing changed."""

from __future__ import annotations

import pytest

from deltaimg.engine.backup.run import back_up
from deltaimg.errors import ImageInUse, SourceChanged
from deltaimg.image.extents import Extents
from deltaimg.model import KIB, MIB
from deltaimg.options.backup import BackupOptions
from tests.support.images import SyntheticImage, SyntheticSource, make_incompressible_image, make_mixed_image
from tests.support.repositories import assert_restores, make_repository


class Forgetful(SyntheticSource):
    """A source whose bytes are others once it was read to its end, and which says nothing of that."""

    def __init__(self, image: SyntheticImage, later: SyntheticImage) -> None:
        super().__init__(image)
        self._later = bytes(later.content)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        got = super().read_into(offset, buffer)
        if offset + got == self.size_bytes and got > 512:  # not when the last sector is looked at
            self._content = self._later
        return got


@pytest.mark.parametrize("edit", ["data", "zeros", "data where zeros were", "data in the last bytes"])
def test_a_write_that_leaves_no_trace_is_found_by_the_sample(edit: str) -> None:
    """The sample of a small image is all of it."""
    image = make_incompressible_image(MIB + 1000, seed=1)
    image.zero(512 * KIB, 64 * KIB)
    later = image.copy()
    if edit == "zeros":
        later.zero(8 * KIB, 4 * KIB)
    else:
        later.write({"data": 100_000, "data where zeros were": 520 * KIB}.get(edit, MIB + 900), b"NEW")
    repository = make_repository()
    with pytest.raises(SourceChanged, match=r"byte \d+ and after it read otherwise the second time"):
        back_up(repository, Forgetful(image, later), "vm1", BackupOptions(workers=1))
    assert repository.list_snapshots() == []
    manifest = back_up(repository, Forgetful(image, later), "vm1", BackupOptions(workers=1, allow_live=True))
    assert manifest.is_live


def test_a_sample_of_a_large_image_always_has_its_beginning() -> None:
    image = make_incompressible_image(8 * MIB, seed=1)
    later = image.copy()
    later.write(1024, b"superblock")
    with pytest.raises(SourceChanged, match=r"byte 0 and after"):
        back_up(make_repository(), Forgetful(image, later), "vm1", BackupOptions(workers=1))


@pytest.mark.parametrize("size_bytes", [1, 4096, 70_000, 5 * MIB + 777])
@pytest.mark.parametrize("block_bytes", [4 * KIB, 256 * KIB])
def test_an_image_that_stays_as_it_is_reads_the_same_again(size_bytes: int, block_bytes: int) -> None:
    repository = make_repository()
    image = make_mixed_image(size_bytes, seed=2)
    for step in range(3):
        options = BackupOptions(workers=2, block_bytes=block_bytes)
        manifest = back_up(repository, SyntheticSource(image), "vm1", options)
        assert_restores(repository, manifest, image.content)
        image.write(step * 10_000 % size_bytes, b"changed")


def test_what_uses_a_source_is_said_before_anything_is_read() -> None:
    class Used(SyntheticSource):
        def find_writer(self) -> str | None:
            return "mounted read-write at /srv"

        def extents(self) -> Extents:
            raise AssertionError

    with pytest.raises(ImageInUse, match=r"is mounted read-write at /srv, so no snapshot was made"):
        back_up(make_repository(), Used(make_mixed_image(4096)), "vm1")
