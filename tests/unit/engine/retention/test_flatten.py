# SPDX-License-Identifier: Apache-2.0
"""Flatten: a snapshot that needs no base and no deep delta, with unchanged content; all others keep theirs."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pytest

from deltaimg.engine.content.snapshot import SnapshotContent
from deltaimg.engine.inspect.run import inspect_snapshot
from deltaimg.engine.progress import NoProgress
from deltaimg.engine.prune.run import prune
from deltaimg.engine.retention.flatten import FlattenResult, flatten
from deltaimg.errors import RepositoryLocked, StoreError, StoreUnavailable, UsageError
from deltaimg.format.manifest import Manifest
from deltaimg.repo.index import load_index
from deltaimg.repo.lock import ImageLock
from deltaimg.repo.repository import Repository, SnapshotRef
from deltaimg.store.memory import MemoryStore
from tests.support.clock import START, FixedClock
from tests.support.faults import FaultyStore
from tests.support.images import make_incompressible_image
from tests.support.repositories import assert_restores, back_up_image, make_repository
from tests.support.retention import keep_only, list_manifests
from tests.support.wrapping import WatchedStore

PAGES = 64
PAGE = 16384


@pytest.fixture
def backups(tmp_path: Path) -> tuple[Repository, list[tuple[Manifest, bytes]]]:
    """Six backups of a database, whose deltas form a chain."""
    repository, image, chance = make_repository(), make_incompressible_image(PAGES * PAGE, seed=1), random.Random(2)
    taken = []
    for _ in range(6):
        taken.append((back_up_image(repository, image, cache_folder=str(tmp_path)), bytes(image.content)))
        for page in chance.sample(range(PAGES), 20):
            image.write(page * PAGE + chance.randrange(PAGE - 100), chance.randbytes(100))
    return repository, taken


def flatten_now(repository: Repository, manifest: Manifest, **options: object) -> FlattenResult:
    ref = SnapshotRef.of(manifest)
    return flatten(repository, ref, clock=FixedClock(), workers=2, **options)  # type: ignore[arg-type]


def check_all(repository: Repository, taken: list[tuple[Manifest, bytes]]) -> None:
    stand = {manifest.id: manifest for manifest in list_manifests(repository)}
    for manifest, content in taken:
        assert (
            SnapshotContent(repository, stand[manifest.id], load_index(repository)).make_reader().read(0, len(content))
            == content
        )


def test_a_flattened_snapshot_needs_no_deltas_and_no_manifest_changes(
    backups: tuple[Repository, list[tuple[Manifest, bytes]]],
) -> None:
    repository, taken = backups
    assert inspect_snapshot(repository, taken[-1][0], load_index(repository)).depth > 1
    result = flatten_now(repository, taken[-1][0])
    assert result.recoded_records
    assert list_manifests(repository) == [manifest for manifest, _ in taken]
    assert inspect_snapshot(repository, result.manifest, load_index(repository)).depth == 0
    check_all(repository, taken)
    assert_restores(repository, result.manifest, taken[-1][1])
    again = flatten_now(repository, result.manifest)
    assert (again.recoded_records, again.written_bytes) == (0, 0)


@pytest.mark.parametrize("depth", [1, 2])
def test_no_delta_is_deeper_than_asked(backups: tuple[Repository, list[tuple[Manifest, bytes]]], depth: int) -> None:
    repository, taken = backups
    for manifest, _ in taken:
        flatten_now(repository, manifest, max_depth=depth)
    for manifest in list_manifests(repository):
        assert inspect_snapshot(repository, manifest, load_index(repository)).depth <= depth
    check_all(repository, taken)


def test_what_a_flatten_leaves_behind_goes_with_the_next_prune(
    backups: tuple[Repository, list[tuple[Manifest, bytes]]],
) -> None:
    repository, taken = backups
    flattened = flatten_now(repository, taken[-1][0]).manifest
    keep_only(repository, [flattened.id])
    prune(repository, clock=FixedClock())
    assert inspect_snapshot(repository, flattened, load_index(repository)).depth == 0
    check_all(repository, taken[-1:])


def test_the_backup_after_a_flatten_is_as_any_other(
    backups: tuple[Repository, list[tuple[Manifest, bytes]]],
) -> None:
    repository, taken = backups
    flattened = flatten_now(repository, taken[-1][0]).manifest
    image = make_incompressible_image(PAGES * PAGE, seed=1)
    image.content[:] = taken[-1][1]
    image.write(5000, b"the next state")
    manifest = back_up_image(repository, image)
    assert manifest.base == flattened.id
    assert manifest.statistics.changed_bytes == 4096
    check_all(repository, [*taken, (manifest, bytes(image.content))])


def test_nobody_flattens_what_is_being_backed_up(backups: tuple[Repository, list[tuple[Manifest, bytes]]]) -> None:
    repository, taken = backups
    with ImageLock(repository, "vm1", "test", START), pytest.raises(RepositoryLocked):
        flatten_now(repository, taken[-1][0])


def test_absurd_depths_are_refused(backups: tuple[Repository, list[tuple[Manifest, bytes]]]) -> None:
    repository, taken = backups
    for depth in (-1, 65):
        with pytest.raises(UsageError):
            flatten_now(repository, taken[-1][0], max_depth=depth)


@pytest.mark.parametrize("mode", ["before", "after", "for good"])
def test_a_flatten_survives_the_failure_of_any_store_call(
    backups: tuple[Repository, list[tuple[Manifest, bytes]]], mode: str, seed: int
) -> None:
    repository, taken = backups
    assert isinstance(repository.objects.store, MemoryStore)
    objects = dict(repository.objects.store.objects)
    counting = WatchedStore(repository.objects.store)
    flatten_now(Repository(counting, repository.config), taken[-1][0])
    assert len(counting.calls) > 30
    for number in range(random.Random(seed).randrange(5), len(counting.calls), 5):
        inner = MemoryStore()
        inner.objects = dict(objects)
        error: StoreError = StoreUnavailable("x", "gone")
        faulty = FaultyStore(inner, error, fail_at=number, after_effect=mode == "after", is_lasting=mode == "for good")
        with contextlib.suppress(StoreUnavailable):
            flatten_now(Repository(faulty, repository.config), taken[-1][0])
        for name in [found.name for found in inner.list("locks/")]:
            inner.delete(name)  # its owner, this process, lives on
        after = Repository.open(inner)
        check_all(after, taken[-2:])
        assert inspect_snapshot(after, flatten_now(after, taken[-1][0]).manifest, load_index(after)).depth == 0
        check_all(after, taken[-2:])


class _InterruptedAt(NoProgress):
    """Raises when so many steps have been reported."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def advance(self, done_bytes: int) -> None:
        super().advance(done_bytes)
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def test_what_an_interrupted_flatten_stored_is_used_by_the_next(
    backups: tuple[Repository, list[tuple[Manifest, bytes]]],
) -> None:
    repository, taken = backups
    whole = make_repository()
    whole.objects.store.objects.update(repository.objects.store.objects)
    all_records = flatten_now(Repository.open(whole.objects.store), taken[-1][0]).recoded_records
    with pytest.raises(KeyboardInterrupt):
        flatten_now(repository, taken[-1][0], progress=_InterruptedAt(2))
    left = flatten_now(repository, taken[-1][0]).recoded_records
    assert 0 < left < all_records
    check_all(repository, taken[-2:])
