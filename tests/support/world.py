# SPDX-License-Identifier: Apache-2.0
"""A repository with a past, what is done to it, and what it must then give back, whatever happened meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from deltaimg.engine.content import SnapshotContent
from deltaimg.errors import RepositoryNotFound
from deltaimg.format.lock import LOCKS, build_lock, parse_lock
from deltaimg.format.manifest import Manifest
from deltaimg.repo.index import load_index
from deltaimg.repo.repository import Repository
from deltaimg.store.interface import Store
from tests.support.clock import FixedClock
from tests.support.images import SyntheticImage, edit_at_random, make_mixed_image
from tests.support.repositories import assert_same_bytes, back_up_image, make_repository

IMAGE_BYTES = 150_000


@dataclass
class Promises:
    """What was promised so far: `contents` of every snapshot ever begun, and which of them are `committed`."""

    contents: dict[str, bytes] = field(default_factory=dict)
    committed: frozenset[str] = frozenset()
    is_made: bool = False
    """Whether `init` has returned."""

    def copy(self) -> Promises:
        return Promises(dict(self.contents), self.committed, self.is_made)


class World:
    """Does what users do, in one process, and keeps account of it in `promises`."""

    def __init__(self, store: Store, images: dict[str, SyntheticImage], promises: Promises | None = None) -> None:
        self.store = store
        self.images = {name: image.copy() for name, image in images.items()}
        self.promises = promises.copy() if promises else Promises()
        self.clock = FixedClock()
        self.on_return: Callable[[], None] = lambda: None

    @property
    def repository(self) -> Repository:
        """Opened anew each time, as every command does."""
        return Repository.open(self.store)

    def init(self) -> None:
        make_repository(self.store)
        self.promises.is_made = True
        self.on_return()

    def edit(self, name: str = "vm1") -> None:
        edit_at_random(self.images[name], 4)

    def back_up(self, name: str = "vm1", **options: object) -> Manifest:
        self.clock.advance(days=1)
        manifest = back_up_image(self.repository, self.images[name], name, clock=self.clock, workers=1, **options)
        self.promises.contents[manifest.id] = bytes(self.images[name].content)
        self.promises.committed |= {manifest.id}
        self.on_return()
        return manifest


def make_images() -> dict[str, SyntheticImage]:
    """Return two images that have content in common."""
    first = make_mixed_image(IMAGE_BYTES, seed=1)
    second = first.copy()
    second.write_random(0, 9000)
    return {"vm1": first, "vm2": second}


def assert_promises(store: Store, promises: Promises) -> None:
    """Assert that the repository opens, that all that is committed is there, and that all that is there restores."""
    try:
        repository = Repository.open(store)
    except RepositoryNotFound:
        assert not promises.is_made, "the repository is gone"
        return
    index = load_index(repository)
    listed = {ref.id: ref for ref in repository.list_snapshots()}
    assert promises.committed <= listed.keys(), "a committed snapshot is gone"
    for ref in listed.values():
        content = promises.contents.get(ref.id)
        assert content is not None, f"nobody has made snapshot {ref.label}"
        manifest = repository.load_manifest(ref)
        reader = SnapshotContent(repository, manifest, index).make_reader()
        assert_same_bytes(reader.read(0, manifest.size_bytes), content)


def reboot(objects: dict[str, bytes]) -> dict[str, bytes]:
    """Return the same repository after a restart of the machine: whoever holds a lock is of another boot."""
    return {name: _age_lock(name, data) if name.startswith(LOCKS) else data for name, data in objects.items()}


def _age_lock(name: str, data: bytes) -> bytes:
    return build_lock(msgspec.structs.replace(parse_lock(data, name), boot_id="an earlier one"))
