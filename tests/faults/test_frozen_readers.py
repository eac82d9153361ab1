# SPDX-License-Identifier: Apache-2.0
"""A reader is frozen while others remove its lock, forget and prune; then it goes on: what was pruned is not called damage."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from deltaimg.engine.check.findings import Severity
from deltaimg.engine.check.run import check
from deltaimg.engine.content.snapshot import SnapshotContent
from deltaimg.engine.inspect.diff import diff_snapshots
from deltaimg.engine.parity.protection import survey_parity
from deltaimg.engine.prune.run import prune
from deltaimg.engine.restore.compare import compare_image
from deltaimg.engine.restore.run import restore
from deltaimg.engine.restore.verify import verify
from deltaimg.errors import ContentDamaged, LockLost, ObjectNotFound, SnapshotNotFound
from deltaimg.options.prune import PruneOptions
from deltaimg.repo.index import load_index
from deltaimg.repo.lock import ReaderLock
from deltaimg.repo.lock_holder import list_locks
from deltaimg.repo.lock_watch import remove_lock
from deltaimg.repo.repository import Repository, SnapshotRef
from deltaimg.store.memory import MemoryStore
from tests.support.clock import START
from tests.support.images import SyntheticSource, make_mixed_image
from tests.support.repositories import assert_same_bytes, back_up_image, make_repository
from tests.support.retention import keep_only
from tests.support.visits import VisitedStore

SIZE = 300_000


class Scene:
    """Two snapshots of one image and one of another, of which the first image is forgotten and pruned meanwhile."""

    def __init__(self, tmp_path: Path) -> None:
        self.folder = tmp_path
        self.store = MemoryStore()
        self.past = make_repository(self.store)
        self.image = make_mixed_image(SIZE, seed=3)
        self.older = back_up_image(self.past, self.image)
        self.image.write_random(40_000, 100_000)
        self.newer = back_up_image(self.past, self.image)
        self.kept = back_up_image(self.past, make_mixed_image(SIZE, seed=4), "kept")
        self.objects = dict(self.store.objects)
        self.has_lost = self.has_pruned = False

    def go_on_without_it(self) -> None:
        """Do what others do once they have watched the heartbeats of all locks standing still."""
        self.has_lost = bool(list_locks(self.store))
        for each in list_locks(self.store):
            remove_lock(self.store, each)
        keep_only(self.past, [self.kept.id])
        self.has_pruned = prune(self.past, PruneOptions(max_unused_percent=0.0)).freed_bytes > 0

    def restore(self, repository: Repository, *, keep_going: bool = False, target: str = "out.raw") -> None:
        path = self.folder / target
        path.unlink(missing_ok=True)
        result = restore(repository, self.newer, str(path), keep_going=keep_going, workers=1)
        assert not result.damage
        assert_same_bytes(path.read_bytes(), self.image.content)

    def read(self, repository: Repository) -> None:
        with ReaderLock(repository, "reading", START) as lock:
            reader = SnapshotContent(repository, self.newer, load_index(repository)).make_reader()
            reader.hold(lock)
            content = b"".join(reader.read(at, 50_000) for at in range(0, SIZE, 50_000))
        assert_same_bytes(content, self.image.content)

    def verify(self, repository: Repository) -> None:
        refs = [SnapshotRef.of(each) for each in (self.older, self.newer)]
        assert not [each for each in verify(repository, refs, workers=1) if each.damage]

    def check(self, repository: Repository, *, read_packs: bool = False) -> None:
        report = check(repository, read_packs=read_packs, workers=1)
        assert not report.of(Severity.ERROR), report.of(Severity.ERROR)

    def diff(self, repository: Repository) -> None:
        assert diff_snapshots(repository, self.older, self.newer).differing_bytes > 0

    def compare(self, repository: Repository) -> None:
        assert not compare_image(repository, self.newer, SyntheticSource(self.image)).differing

    def show_parity(self, repository: Repository) -> None:
        protection = survey_parity(repository, is_thorough=True)
        assert not protection.lost
        assert not protection.damage


VERBS: dict[str, Callable[[Scene, Repository], None]] = {
    "restore": Scene.restore,
    "restore --keep-going": partial(Scene.restore, keep_going=True),
    "read": Scene.read,
    "verify": Scene.verify,
    "check": Scene.check,
    "check --read-packs": partial(Scene.check, read_packs=True),
    "diff": Scene.diff,
    "verify --against": Scene.compare,
    "parity show": Scene.show_parity,
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_reader_frozen_at_any_call_ends_right_or_says_that_it_lost_its_lock(tmp_path: Path, verb: str) -> None:
    scene, act = Scene(tmp_path), VERBS[verb]
    outcomes: list[str] = []
    for call in range(200):
        scene.store.objects = dict(scene.objects)
        visited = VisitedStore(scene.store, call, scene.go_on_without_it)
        try:
            act(scene, Repository(visited, scene.past.config))
            outcomes.append("done")
        except LockLost:
            assert scene.has_lost
            assert scene.has_pruned
            outcomes.append("lost")
        except SnapshotNotFound:
            assert not scene.has_lost, "it was forgotten before the lock was taken"
        if not visited.has_acted:
            break
    assert "lost" in outcomes
    assert outcomes[-1] == "done"
    assert not [path for path in tmp_path.iterdir() if path.name != "out.raw"]


def test_damage_is_damage_as_long_as_the_lock_is_held(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    for name in [name for name in scene.store.objects if name.startswith("packs/")]:
        del scene.store.objects[name]
    with pytest.raises((ContentDamaged, ObjectNotFound)):
        scene.restore(scene.past)
    assert [each for each in verify(scene.past, [SnapshotRef.of(scene.newer)]) if each.damage]


def test_an_image_is_read_to_its_end_though_the_lock_was_lost_where_nothing_was_deleted(tmp_path: Path) -> None:
    scene = Scene(tmp_path)

    def remove_locks() -> None:
        for each in list_locks(scene.store):
            remove_lock(scene.store, each)

    visited = VisitedStore(scene.store, 12, remove_locks)
    scene.restore(Repository(visited, scene.past.config))
    assert visited.has_acted
