# SPDX-License-Identifier: Apache-2.0
"""Two repositories of a family, what the snapshots of the first hold, and syncs from it to the second."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from deltaimg.engine.check.findings import Severity
from deltaimg.engine.check.run import check
from deltaimg.engine.restore.verify import verify
from deltaimg.engine.sync.request import SyncRequest, SyncResult
from deltaimg.engine.sync.run import sync
from deltaimg.options.keep import Policy
from deltaimg.options.sync import SyncOptions
from deltaimg.repo.creation import create_repository
from deltaimg.repo.repository import Repository
from deltaimg.store.interface import Store
from deltaimg.store.memory import MemoryStore
from tests.support.clock import START, FixedClock
from tests.support.images import SyntheticImage, edit_at_random, make_mixed_image
from tests.support.repositories import Warnings, assert_restores, back_up_image, make_repository
from tests.support.wrapping import WatchedStore


def make_like(other: Repository, store: Store | None = None) -> Repository:
    """Return a new repository of the same family."""
    return create_repository(store or MemoryStore("second"), created=START, software="tests", like=other)


def names_of(repository: Repository, folder: str) -> set[str]:
    """Return the names of all objects of a folder."""
    return {found.name for found in repository.objects.list(folder)}


def watch_calls(repository: Repository) -> Repository:
    """Return the repository over a store that notes calls, which are in `objects.store.calls`."""
    return Repository(WatchedStore(repository.objects.store), repository.config)


@dataclass(slots=True)
class Family:
    """A repository with snapshots, whose content is known by snapshot id."""

    source: Repository
    clock: FixedClock = field(default_factory=FixedClock)
    contents: dict[str, bytes] = field(default_factory=dict)

    def back_up(self, image: SyntheticImage, name: str = "vm1", **options: object) -> str:
        """Store an image as it is now; return the id of the snapshot."""
        self.clock.advance(days=1)
        manifest = back_up_image(self.source, image, name, clock=self.clock, **options)
        self.contents[manifest.id] = bytes(image.content)
        return manifest.id

    def assert_whole(self, repository: Repository, count: int | None = None) -> None:
        """Every snapshot of a repository restores to what it held; there are `count`; check and verify have no complaint."""
        assert_sound(repository)
        refs = repository.list_snapshots()
        for ref in refs:
            assert_restores(repository, repository.load_manifest(ref), self.contents[ref.id])
        if count is not None:
            assert len(refs) == count


def make_family(days: int = 3, images: tuple[str, ...] = ("vm1",), size_bytes: int = 600_000) -> Family:
    """Back up each image every day, edited in between."""
    family = Family(make_repository(MemoryStore("first")))
    states = {name: make_mixed_image(size_bytes, seed) for seed, name in enumerate(images)}
    for _ in range(days):
        for name, image in states.items():
            family.back_up(image, name)
            edit_at_random(image)
    return family


def run_sync(source: Repository, destination: Repository, policy: Policy | None = None, **options: Any) -> SyncResult:
    """Sync with a clock of its own, and without a warning."""
    progress = Warnings()
    request = SyncRequest(
        source,
        destination,
        SyncOptions(**options),
        policy or Policy(),
        progress=progress,
        clock=FixedClock(),
    )
    result = sync(request)
    assert not progress.messages
    return result


def assert_sound(repository: Repository) -> None:
    """Check finds no error, and every block of every snapshot can be read and has its digest."""
    report = check(repository, read_packs=True)
    assert [each for each in report.findings if each.severity is Severity.ERROR] == []
    for verified in verify(repository, repository.list_snapshots(), clock=FixedClock()):
        assert not verified.damage
