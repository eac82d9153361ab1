# SPDX-License-Identifier: Apache-2.0
"""Each byte of a small repository is flipped in turn: found by check or verify, and never a wrong restore."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

import pytest

from deltaimg.engine.check.findings import Severity
from deltaimg.engine.check.run import check
from deltaimg.engine.restore.run import restore
from deltaimg.engine.restore.verify import verify
from deltaimg.errors import DeltaimgError
from deltaimg.format.manifest import Manifest
from deltaimg.repo.repository import Repository
from deltaimg.store.memory import MemoryStore
from tests.support.images import SyntheticImage
from tests.support.repositories import back_up_image, make_repository


@cache
def small_repository() -> tuple[Repository, dict[str, bytes], list[tuple[Manifest, bytes]]]:
    """Return two backups of an image of five blocks, whose records are a few hundred bytes."""
    repository = make_repository()
    image = SyntheticImage(20_000, seed=2)
    image.write(0, bytes(range(1, 200)) * 20)
    image.write(8192, b"the same line again and again\n" * 200)
    taken = [(back_up_image(repository, image), bytes(image.content))]
    image.write(8200, b"and another one")
    taken.append((back_up_image(repository, image), bytes(image.content)))
    objects: dict[str, bytes] = repository.objects.store.objects  # type: ignore[attr-defined]
    return repository, objects, taken


def find(store: MemoryStore) -> bool:
    """Tell whether opening, check or verify finds something wrong."""
    try:
        repository = Repository.open(store)
        if check(repository, read_packs=True).of(Severity.ERROR):
            return True
        report = verify(repository, repository.list_snapshots(), workers=1)
    except DeltaimgError:
        return True
    return any(each.damage for each in report)


def test_every_flipped_byte_is_found_and_none_gives_a_wrong_restore(
    tmp_path: Path, seed: int, request: pytest.FixtureRequest
) -> None:
    _, objects, taken = small_repository()
    places = [(name, place) for name, data in objects.items() for place in range(len(data))]
    chance = random.Random(seed)
    chosen = places if request.config.getoption("--long") else chance.sample(places, 150)
    store = MemoryStore()
    for number, (name, place) in enumerate(chosen):
        store.objects = dict(objects)
        data = objects[name]
        store.objects[name] = data[:place] + bytes([data[place] ^ (1 << chance.randrange(8))]) + data[place + 1 :]
        for manifest, content in taken:
            target = tmp_path / f"{number}"
            try:
                repository = Repository.open(store)
                ref = next(ref for ref in repository.list_snapshots() if ref.id == manifest.id)
                restore(repository, repository.load_manifest(ref), str(target), workers=1)
                assert target.read_bytes() == content, (name, place)
            except DeltaimgError:
                pass
            target.unlink(missing_ok=True)
        assert find(store), (name, place)
    print(f"{len(chosen)} of {len(places)} bytes, all found")
