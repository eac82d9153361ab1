# SPDX-License-Identifier: Apache-2.0
"""A repository with a past, the operations on it, and what it must restore afterwards, whatever happened meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import msgspec

from deltaimg.crypto.key_slots import Key
from deltaimg.engine.check.findings import Severity
from deltaimg.engine.check.run import check
from deltaimg.engine.content.snapshot import SnapshotContent
from deltaimg.engine.prune.run import prune
from deltaimg.engine.repair.run import repair
from deltaimg.engine.retention.annotate import change_tags, set_pin
from deltaimg.engine.retention.flatten import flatten
from deltaimg.engine.retention.forget import forget
from deltaimg.errors import RepositoryNotFound
from deltaimg.format.lock import LOCKS, build_lock, parse_lock
from deltaimg.format.manifest import Manifest
from deltaimg.options.prune import PruneOptions
from deltaimg.repo.index import load_index
from deltaimg.repo.lock_waiting import LockWaiting
from deltaimg.repo.repository import Repository, SnapshotRef
from deltaimg.repo.retention import plan_named
from deltaimg.repo.selector import select_snapshot
from deltaimg.repo.snapshots import load_snapshot
from deltaimg.store.interface import Store
from tests.support.clock import FixedClock
from tests.support.images import SyntheticImage, edit_at_random, make_mixed_image
from tests.support.repositories import assert_same_bytes, back_up_image, make_repository, open_again

IMAGE_BYTES = 150_000
_PASSING_NO_TIME = LockWaiting(sleep=lambda _: None)


@dataclass
class Promises:
    """What was promised so far: `contents` of each snapshot ever begun, and which are `committed` and not forgotten."""

    contents: dict[str, bytes] = field(default_factory=dict)
    committed: frozenset[str] = frozenset()
    pins: dict[str, frozenset[str | None]] = field(default_factory=dict)
    """Of each snapshot that ever was pinned, what its pin may say now; both, while that is changed."""
    is_made: bool = False
    """Whether `init` has returned."""

    def copy(self) -> Promises:
        """Return what is promised now; contents that become known later are known to the copy, too."""
        return replace(self, pins=dict(self.pins))


class World:
    """Does what users do, in one process, and keeps account of it in `promises`."""

    def __init__(
        self,
        store: Store,
        images: dict[str, SyntheticImage],
        promises: Promises | None = None,
        key: Key | None = None,
    ) -> None:
        """Args: key: encrypts the repository that `init` makes."""
        self.store, self.key = store, key
        self.images = {name: image.copy() for name, image in images.items()}
        self.promises = promises.copy() if promises else Promises()
        self.clock = FixedClock()
        self.on_return: Callable[[], None] = lambda: None

    @property
    def repository(self) -> Repository:
        """Opened again each time, as every command does; where it would wait for minutes, no time passes."""
        repository = open_again(self.store)
        repository.lock_waiting = _PASSING_NO_TIME
        return repository

    def init(self) -> None:
        make_repository(self.store, self.key, lock_waiting=_PASSING_NO_TIME)
        self.promises.is_made = True
        self.on_return()

    def edit(self, name: str = "vm1") -> None:
        edit_at_random(self.images[name], 4)

    def back_up(self, name: str = "vm1", **options: object) -> Manifest:
        self.clock.advance(days=1)
        options.setdefault("allow_shrink", True)
        manifest = back_up_image(self.repository, self.images[name], name, clock=self.clock, workers=1, **options)
        self.promises.contents[manifest.id] = bytes(self.images[name].content)
        self.promises.committed |= {manifest.id}
        self.on_return()
        return manifest

    def adopt(self, name: str) -> None:
        """Treat an unknown snapshot of `name` as one whose backup died after its commit."""
        for ref in self.repository.list_snapshots(name):
            if ref.id not in self.promises.contents:
                self.promises.contents[ref.id] = bytes(self.images[name].content)
                self.promises.committed |= {ref.id}

    def forget(self, ids: Iterable[str]) -> None:
        """Forget snapshots of one image that are not pinned; their fate is open from the moment at which this begins."""
        named = [ref for ref in self.repository.list_snapshots() if ref.id in set(ids) and not self.is_pinned(ref)]
        if named:
            going = frozenset(ref.id for ref in named)
            self.promises.committed -= going
            forget(self.repository, named[0].image, partial(plan_named, ids=going, is_forced=True), clock=self.clock)
        self.on_return()

    def prune(self) -> None:
        """Prune to the last byte, which is what moves most."""
        prune(self.repository, PruneOptions(max_unused_percent=0), clock=self.clock)
        self.on_return()

    def flatten(self, snapshot: str) -> None:
        flatten(self.repository, self.find(snapshot), clock=self.clock, workers=1)
        self.on_return()

    def pin(self, snapshot: str) -> None:
        """Pin a snapshot, or let a pinned one go."""
        ref = self.find(snapshot)
        before = load_snapshot(self.repository, ref).pin_reason
        after = None if before is not None else "asked for"
        self.promises.pins[ref.id] = frozenset((before, after))
        set_pin(self.repository, ref, after, clock=self.clock)
        self.promises.pins[ref.id] = frozenset((after,))
        self.on_return()

    def tag(self, snapshot: str) -> None:
        """Give a snapshot one more tag; what else was said of it must stay."""
        change_tags(self.repository, self.find(snapshot), added=[f"day-{self.clock.now:%j}"], clock=self.clock)
        self.on_return()

    def is_pinned(self, ref: SnapshotRef) -> bool:
        return load_snapshot(self.repository, ref).pin_reason is not None

    def repair(self) -> None:
        repair(self.repository, clock=self.clock)
        self.on_return()

    def find(self, snapshot: str) -> SnapshotRef:
        """Return the snapshot of this id."""
        return select_snapshot(self.repository, snapshot)

    @contextmanager
    def on(self, store: Store) -> Iterator[None]:
        """Reach the repository through `store` for a while."""
        before, self.store = self.store, store
        try:
            yield
        finally:
            self.store = before


def make_images() -> dict[str, SyntheticImage]:
    """Return two images that have content in common."""
    first = make_mixed_image(IMAGE_BYTES, seed=1)
    second = first.copy()
    second.write_random(0, 9000)
    return {"vm1": first, "vm2": second}


def assert_promises(store: Store, promises: Promises) -> None:
    """Assert that the repository opens, that all that is committed is there, and that all that is there restores."""
    try:
        repository = open_again(store)
    except RepositoryNotFound:
        assert not promises.is_made, "the repository is gone"
        return
    index = load_index(repository)
    listed = {ref.id: ref for ref in repository.list_snapshots()}
    assert promises.committed <= listed.keys(), "a committed snapshot is gone"
    for ref in listed.values():
        content = promises.contents.get(ref.id)
        assert content is not None, f"nobody has made snapshot {ref.label}"
        snapshot = load_snapshot(repository, ref)
        assert snapshot.pin_reason in promises.pins.get(ref.id, (None,)), f"{ref.label} is not pinned as it was"
        manifest = snapshot.manifest
        reader = SnapshotContent(repository, manifest, index).make_reader()
        assert_same_bytes(reader.read(0, manifest.size_bytes), content)
    assert_sound(repository)


def assert_sound(repository: Repository) -> None:
    """Assert that `check` finds nothing that could cost content."""
    errors = check(repository, read_packs=True, workers=1).of(Severity.ERROR)
    assert not errors, errors


def reboot(objects: dict[str, bytes]) -> dict[str, bytes]:
    """Return the same repository after a restart of the machine: whoever holds a lock is of another boot."""
    return {name: _age_lock(name, data) if name.startswith(LOCKS) else data for name, data in objects.items()}


def _age_lock(name: str, data: bytes) -> bytes:
    return build_lock(msgspec.structs.replace(parse_lock(data, name), boot_id="an earlier one"))
