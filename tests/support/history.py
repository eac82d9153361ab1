# SPDX-License-Identifier: Apache-2.0
"""Repositories with a history of backups, snapshots forgotten from them, and the check that the others restore."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from deltaimg.engine.retention.forget import forget
from deltaimg.format.manifest import Manifest
from deltaimg.repo.repository import Repository
from deltaimg.repo.retention import ForgetPlan, plan_named
from deltaimg.store.interface import Store
from tests.support.clock import FixedClock
from tests.support.images import SyntheticImage, edit_at_random, make_mixed_image
from tests.support.repositories import Warnings, assert_restores, back_up_image, make_repository


@dataclass(frozen=True, slots=True)
class KnownSnapshot:
    """A snapshot, and what it must give back."""

    manifest: Manifest
    content: bytes

    @property
    def id(self) -> str:
        return self.manifest.id


@dataclass(frozen=True, slots=True)
class History:
    """Some snapshots of one image, oldest first, and the image as it is now."""

    repository: Repository
    snapshots: list[KnownSnapshot]
    image: SyntheticImage


def make_history(count: int, *, size_bytes: int = 300_000, seed: int = 1, store: Store | None = None) -> History:
    """Back up an image that is edited, and now and then resized, between backups."""
    repository = make_repository(store)
    image, clock = make_mixed_image(size_bytes, seed), FixedClock()
    snapshots = []
    for number in range(count):
        clock.advance(days=1)
        snapshots.append(KnownSnapshot(back_up_image(repository, image, clock=clock), bytes(image.content)))
        edit_at_random(image)
        if number % 3 == 2:
            image.resize(image.random.randrange(size_bytes // 2, size_bytes * 3 // 2))
    return History(repository, snapshots, image)


def forget_ids(
    repository: Repository, ids: Iterable[str], *, is_forced: bool = False, progress: Warnings | None = None
) -> ForgetPlan:
    """Forget those of an image's snapshots that have these ids and are still there."""
    wanted = frozenset(ids)
    return forget(
        repository,
        "vm1",
        lambda snapshots: plan_named(snapshots, wanted, is_forced=is_forced),
        progress=progress,
        clock=FixedClock(),
    )


def assert_snapshots_restore(repository: Repository, snapshots: Iterable[KnownSnapshot]) -> None:
    """Each snapshot that is listed is one of `snapshots`, has not changed, and restores."""
    known = {snapshot.id: snapshot for snapshot in snapshots}
    for ref in repository.list_snapshots("vm1"):
        manifest, snapshot = repository.load_manifest(ref), known[ref.id]
        assert manifest == snapshot.manifest
        assert_restores(repository, manifest, snapshot.content)
