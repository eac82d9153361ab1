# SPDX-License-Identifier: Apache-2.0
"""Images of one origin share delta sources: what the first of them stored makes the others' backups nearly free."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from deltaimg.format.manifest import Manifest
from deltaimg.model import KIB, MIB
from deltaimg.repo.index import load_index
from tests.support.images import SyntheticImage, make_incompressible_image
from tests.support.repositories import assert_restores, back_up_image, count_stored_bytes, make_repository

UPGRADE_BYTES = 256 * KIB


def upgrade(image: SyntheticImage, guest: str, release: int = 1) -> None:
    """Replace a part of the image by content that all guests get, but for a few bytes of each block."""
    image.write(MIB // 2, random.Random(100 + release).randbytes(UPGRADE_BYTES))
    chance = random.Random(f"{guest} {release}")
    for block in range(UPGRADE_BYTES // 4096):
        image.write(MIB // 2 + block * 4096 + chance.randrange(4000), guest.encode())


class Guests:
    """Clones of one template, in one repository, backed up by one host."""

    def __init__(self, folder: Path, count: int = 2) -> None:
        self.repository = make_repository()
        self.folder = folder
        self.template = make_incompressible_image(MIB, seed=1)
        self.back_up(self.template, "template")
        self.images = {f"guest{number:02}": self.template.copy() for number in range(count)}

    def back_up(self, image: SyntheticImage, name: str, **options: object) -> Manifest:
        options.setdefault("cache_folder", str(self.folder))
        return back_up_image(self.repository, image, name, **options)

    def cache_of(self, name: str) -> Path:
        return self.folder / self.repository.config.repository_id / f"{name}.anchors"


@pytest.mark.native_speed
def test_twenty_upgrades_cost_little_more_than_one(tmp_path: Path) -> None:
    guests = Guests(tmp_path, 20)
    for name, image in guests.images.items():
        image.write(100, name.encode())
        guests.back_up(image, name)
    before, sizes = count_stored_bytes(guests.repository), []
    for name, image in guests.images.items():
        upgrade(image, name)
        manifest = guests.back_up(image, name)
        sizes.append(manifest.statistics.stored_bytes)
        assert manifest.statistics.new_bytes > UPGRADE_BYTES * 0.9
        if name in ("guest00", "guest01", "guest19"):
            assert_restores(guests.repository, manifest, image.content)
    assert sizes[0] > UPGRADE_BYTES
    assert max(sizes[1:]) < sizes[0] / 20
    assert count_stored_bytes(guests.repository) - before < 2 * sizes[0]
    assert load_index(guests.repository).links.depths.max() == 1, "all depend on the first, not each on the one before"


def test_a_clone_changed_before_its_first_backup_is_stored_against_its_origin(tmp_path: Path) -> None:
    guests = Guests(tmp_path, 1)
    image = guests.images["guest00"]
    chance = random.Random(3)
    for block in range(64):
        image.write(block * 4096 + chance.randrange(4000), b"changed")
    alone = guests.back_up(image, "alone", cache_folder=None)
    assert alone.statistics.stored_bytes > 60 * 4096
    guests = Guests(tmp_path / "again", 1)
    manifest = guests.back_up(image, "clone")
    assert manifest.base is None
    assert manifest.statistics.stored_bytes < alone.statistics.stored_bytes / 10
    assert_restores(guests.repository, manifest, image.content)


def test_content_kept_of_another_image_is_a_source(tmp_path: Path) -> None:
    """The first guest's newest content is several deltas deep; only content kept on the host makes it cheap to read."""
    guests = Guests(tmp_path, 2)
    for name, image in guests.images.items():
        guests.back_up(image, name)
    first, second = guests.images.values()
    chance = random.Random(4)
    for _ in range(3):
        for block in range(128, 192):
            first.write(block * 4096, chance.randbytes(2000))
            first.write(block * 4096 + 2048, chance.randbytes(100))
        guests.back_up(first, "guest00")
    links = load_index(guests.repository).links
    assert links.depths.max() > 1
    second.content[:] = first.content
    for block in range(128, 192):
        second.write(block * 4096 + 3000, b"of the second guest")
    manifest = guests.back_up(second, "guest01")
    assert manifest.statistics.stored_bytes < manifest.statistics.new_bytes / 10
    assert_restores(guests.repository, manifest, second.content)


def test_an_image_of_other_origin_supplies_nothing(tmp_path: Path) -> None:
    guests = Guests(tmp_path, 2)
    first, stranger = guests.images["guest00"], make_incompressible_image(MIB, seed=99)
    for name, image in (("guest00", first), ("stranger", stranger)):
        guests.back_up(image, name)
        upgrade(image, name)
    guests.back_up(first, "guest00")
    manifest = guests.back_up(stranger, "stranger")
    assert manifest.statistics.stored_bytes > UPGRADE_BYTES
    index = load_index(guests.repository)
    assert not index.links.counts[index.entries["pack"] == index.entries["pack"].max()].any()


@pytest.mark.parametrize("harm", ["labels", "ids", "cut", "noise"])
@pytest.mark.parametrize("whose", ["guest00", "guest01"])
def test_a_harmed_cache_of_either_image_costs_bytes_and_nothing_else(tmp_path: Path, whose: str, harm: str) -> None:
    guests = Guests(tmp_path, 2)
    for release in (1, 2):
        for name, image in guests.images.items():
            guests.back_up(image, name)
            upgrade(image, name, release)
        guests.back_up(guests.images["guest00"], "guest00")
    path = guests.cache_of(whose)
    data = bytearray(path.read_bytes())
    if harm == "labels":
        buckets = int.from_bytes(data[24:32], "little")
        labels = np.frombuffer(data, "<u4", offset=64, count=16 * buckets)[1::2]
        chance = np.random.default_rng(5)
        # Half of them labels that were never given, the others those of other blocks.
        labels[labels > 0] = chance.integers(1, 2 ** chance.integers(9, 33, np.count_nonzero(labels)))
    elif harm == "ids":
        data[-500:] = random.Random(6).randbytes(500)
    elif harm == "cut":
        del data[len(data) // 2 :]
    else:
        data = bytearray(random.Random(7).randbytes(len(data)))
    path.write_bytes(data)
    image = guests.images["guest01"]
    assert_restores(guests.repository, guests.back_up(image, "guest01"), image.content)
