# SPDX-License-Identifier: Apache-2.0
"""Every call that a sync makes to either store fails, before or after its effect, once or for good: the destination has whole
snapshots and nothing else, and the next sync completes them without sending again what had arrived."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta

import pytest

from deltaimg.engine.check.findings import Severity
from deltaimg.engine.check.run import check
from deltaimg.engine.retention.annotate import set_pin
from deltaimg.engine.sync.request import SyncRequest, SyncResult
from deltaimg.engine.sync.run import sync
from deltaimg.errors import DeltaimgError, LockLost, StoreUnavailable
from deltaimg.options.sync import SyncOptions
from deltaimg.repo.lock_holder import list_locks
from deltaimg.repo.repository import Repository
from deltaimg.store.memory import MemoryStore
from tests.support.clock import START, FixedClock
from tests.support.faults import FaultyStore
from tests.support.images import edit_at_random, make_database_image
from tests.support.repositories import make_repository
from tests.support.sync import Family, make_like, run_sync
from tests.support.wrapping import WatchedStore

ERROR = StoreUnavailable("x", "gone")
MODES = ["before", "after", "for good"]


@dataclass(frozen=True, slots=True)
class Scene:
    """A source, a destination that has some of it, as a dictionary, and how many calls a sync makes to each."""

    family: Family
    destination: dict[str, bytes]
    source_calls: int
    destination_calls: int
    pack_count: int

    def copy(self) -> MemoryStore:
        store = MemoryStore("second")
        store.objects = dict(self.destination)
        return store


@pytest.fixture(scope="module")
def scene() -> Scene:
    """Records that are there, whole packs, records that are gathered, an annotation, two images."""
    family = Family(make_repository(MemoryStore("first")))
    images = {"vm1": make_database_image(300_000, 1), "vm2": make_database_image(200_000, 2)}
    for _ in range(3):
        for name, image in images.items():
            family.back_up(image, name)
            edit_at_random(image)
    set_pin(family.source, family.source.list_snapshots("vm2")[0], "the first")
    destination = make_like(family.source, MemoryStore("second"))
    run_sync(family.source, destination, since=START + timedelta(days=5))
    objects = dict(destination.objects.store.objects)
    ends = [Repository(WatchedStore(each.objects.store), each.config) for each in (family.source, destination)]
    run_sync(*ends)
    calls = [each.objects.store.calls for each in ends]
    family.assert_whole(destination, 6)
    assert len(set(objects) & set(destination.objects.store.objects)) == len(objects)
    packs = sum(name.startswith("packs/") for name in destination.objects.store.objects)
    return Scene(family, objects, len(calls[0]), len(calls[1]), packs)


def try_sync(source: Repository, destination: Repository) -> DeltaimgError | SyncResult:
    """Sync and return the result, or the error that ended it; anything but a DeltaimgError fails the test."""
    try:
        return sync(SyncRequest(source, destination, SyncOptions(), clock=FixedClock()))
    except DeltaimgError as error:
        return error


def check_after_failure(scene: Scene, store: MemoryStore, sent: list[str]) -> None:
    """What there is is whole; the next sync brings the rest, and no pack that was sent before."""
    for name in [found.name for found in store.list("locks/")]:
        store.delete(name)  # its removal may be what failed, and its owner, this process, lives on
    destination = Repository.open(store)
    scene.family.assert_whole(destination)
    arrived = {name for name in store.objects if name.startswith("packs/")}
    counting = WatchedStore(store)
    run_sync(scene.family.source, Repository(counting, destination.config))
    again = [call.removeprefix("put ") for call in counting.calls if call.startswith("put packs/")]
    assert not arrived & set(again)
    assert sum(name.startswith("packs/") for name in store.objects) <= scene.pack_count + 1
    scene.family.assert_whole(destination, 6)
    assert not list_locks(destination.objects)
    assert not check(destination).of(Severity.WARNING)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.long)])
def test_a_sync_survives_the_failure_of_any_call_to_the_destination(
    scene: Scene, mode: str, stride: int, seed: int
) -> None:
    assert scene.destination_calls > 20
    for number in range(random.Random(seed).randrange(stride), scene.destination_calls, stride):
        store = scene.copy()
        faulty = FaultyStore(store, ERROR, fail_at=number, after_effect=mode == "after", is_lasting=mode == "for good")
        met = try_sync(scene.family.source, Repository(faulty, Repository.open(store).config))
        assert met is ERROR or isinstance(met, SyncResult | LockLost), (number, met)
        check_after_failure(scene, store, faulty.calls)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.long)])
def test_a_sync_survives_the_failure_of_any_call_to_the_source(scene: Scene, mode: str, stride: int, seed: int) -> None:
    assert scene.source_calls > 15
    for number in range(random.Random(seed).randrange(stride), scene.source_calls, stride):
        store = scene.copy()
        faulty = FaultyStore(
            scene.family.source.objects.store,
            ERROR,
            fail_at=number,
            after_effect=mode == "after",
            is_lasting=mode == "for good",
        )
        destination = Repository.open(store)
        met = try_sync(Repository(faulty, scene.family.source.config), destination)
        assert met is ERROR or isinstance(met, SyncResult), (number, met)
        check_after_failure(scene, store, faulty.calls)
        for name in [found.name for found in faulty.inner.list("locks/")]:
            faulty.inner.delete(name)
