# SPDX-License-Identifier: Apache-2.0
"""A repository with a chain of deltas, small enough for tests of single modules."""

from __future__ import annotations

import random

from deltaimg.format.manifest import Manifest
from deltaimg.repo.repository import Repository
from deltaimg.store.memory import MemoryStore
from tests.support.clock import FixedClock
from tests.support.images import make_incompressible_image
from tests.support.repositories import back_up_image, make_repository

PAGE = 4096
_CHANGED_PAGES = 12


def make_chain(
    store: MemoryStore | None = None, snapshots: int = 4, pages: int = 48
) -> tuple[Repository, Manifest, bytes]:
    """Return a repository, the manifest of its newest snapshot, and what that holds: some records of it are deltas."""
    chance, clock = random.Random(5), FixedClock()
    repository, image = make_repository(store), make_incompressible_image(pages * PAGE + 1000, seed=5)
    image.punch(3 * PAGE, 2 * PAGE)
    image.zero(7 * PAGE, PAGE)
    manifest = back_up_image(repository, image, clock=clock)
    for _ in range(snapshots - 1):
        for page in chance.sample(range(10, pages), _CHANGED_PAGES):
            image.write(page * PAGE + chance.randrange(PAGE - 8), chance.randbytes(8))
        clock.advance(days=1)
        manifest = back_up_image(repository, image, clock=clock)
    return repository, manifest, bytes(image.content)
