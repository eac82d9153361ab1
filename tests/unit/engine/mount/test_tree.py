# SPDX-License-Identifier: Apache-2.0
"""What a mounted repository shows, without FUSE."""

from __future__ import annotations

import pytest

from deltaimg.engine.mount.tree import FRESH_S, Folder, Link, SnapshotTree, time_in_ns
from deltaimg.errors import RepositoryNotFound
from deltaimg.format.manifest import Manifest
from deltaimg.model import MIB
from deltaimg.repo.repository import Repository
from deltaimg.store.memory import MemoryStore
from tests.support.flips import flip
from tests.support.images import make_mixed_image
from tests.support.repositories import back_up_image, make_repository


class Clock:
    """Stands still until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def repository() -> Repository:
    return make_repository()


def objects_of(repository: Repository) -> dict[str, bytes]:
    assert isinstance(repository.objects.store, MemoryStore)
    return repository.objects.store.objects


def test_a_repository_without_snapshots_is_an_empty_folder(repository: Repository) -> None:
    tree = SnapshotTree(repository, pytest.fail)
    assert tree.find("/") == Folder((), 0)
    with pytest.raises(FileNotFoundError):
        tree.find("/vm1")


def test_a_listing_is_read_again_once_it_is_old(repository: Repository) -> None:
    clock, image = Clock(), make_mixed_image(MIB, seed=1)
    older = back_up_image(repository, image)
    tree = SnapshotTree(repository, pytest.fail, clock)
    (name,) = tree.find("/").names  # type: ignore[union-attr]
    assert len(tree.find(f"/{name}").names) == 2  # type: ignore[union-attr]
    image.content[0] ^= 1
    newer = back_up_image(repository, image)
    assert len(tree.find(f"/{name}").names) == 2  # type: ignore[union-attr]
    clock.now += FRESH_S
    folder = tree.find(f"/{name}")
    assert isinstance(folder, Folder)
    assert len(folder.names) == 3
    assert folder.changed_ns == int(newer.taken_at.timestamp()) * 10**9
    assert tree.find(f"/{name}/latest.raw") == Link(folder.names[1], folder.changed_ns)
    assert tree.find(f"/{name}/{folder.names[1]}") == newer
    del objects_of(repository)[newer.object_name]
    clock.now += FRESH_S
    assert tree.find(f"/{name}/latest.raw") == Link(folder.names[0], time_in_ns(older))


def test_a_repository_that_has_vanished_is_not_an_empty_folder(repository: Repository) -> None:
    clock = Clock()
    back_up_image(repository, make_mixed_image(MIB, seed=1))
    tree = SnapshotTree(repository, pytest.fail, clock)
    listed = tree.find("/")
    there = dict(objects_of(repository))
    objects_of(repository).clear()
    clock.now += FRESH_S
    with pytest.raises(RepositoryNotFound, match="there is no repository"):
        tree.find("/")
    make_repository(repository.objects.store)
    with pytest.raises(RepositoryNotFound, match="another repository is here now"):
        tree.find("/")
    objects_of(repository).update(there)
    assert tree.find("/") == listed


def test_a_snapshot_whose_manifest_is_damaged_is_left_out_and_named_once(repository: Repository) -> None:
    image = make_mixed_image(MIB, seed=1)
    older = back_up_image(repository, image)
    image.content[0] ^= 1
    newer = back_up_image(repository, image)
    objects_of(repository)[newer.object_name] = flip(objects_of(repository)[newer.object_name], -1)
    said: list[str] = []
    tree = SnapshotTree(repository, said.append)
    for _ in range(2):
        folder = tree.find(f"/{older.image}")
        assert isinstance(folder, Folder)
        assert len(folder.names) == 2
    assert isinstance(tree.find(f"/{older.image}/{folder.names[0]}"), Manifest)
    assert len(said) == 1
    assert said[0].startswith(f"{newer.label} is left out: {newer.object_name}")
