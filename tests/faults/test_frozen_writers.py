# SPDX-License-Identifier: Apache-2.0
"""A run is frozen at any moment, others remove its lock and go on: forget, prune, back up. Then it wakes.

Nothing of others is lost or damaged, and it ends as if nothing had happened, or says that it lost its lock.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from deltaimg.engine.parity.add import add_parity
from deltaimg.engine.parity.repair import repair_packs
from deltaimg.engine.repair.run import repair
from deltaimg.errors import LockLost, RepositoryLocked, SnapshotNotFound
from deltaimg.repo.repository import Repository
from deltaimg.store.memory import MemoryStore
from tests.support.frozen import FrozenStore, remove_all_locks
from tests.support.images import edit_at_random
from tests.support.world import World, assert_promises, make_images

TRIED_MOMENTS = 8
"""So many of each verb are tried without --long, most of them around calls that change something."""
SHARE_OF_READS = 7
"""Of the moments around calls that only read, one in so many may be among them."""
_READS = ("get ", "get_range ", "list ")


class Scene:
    """A repository in which each verb has something to do."""

    def __init__(self, *, is_damaged: bool) -> None:
        world = World(MemoryStore(), make_images())
        world.init()
        self.copy = MemoryStore()
        for number in range(3):
            for name in ("vm1", "vm2"):
                world.back_up(name)
                edit_at_random(world.images[name], 3)
                world.images[name].write_random(20_000 * number, 30_000)
        add_parity(world.repository, 50, clock=world.clock)
        world.forget([world.repository.list_snapshots("vm1")[-1].id])
        self.objects = dict(world.store.objects)  # type: ignore[attr-defined]
        self.copy.objects = dict(self.objects)
        self.images, self.promises, self.now = world.images, world.promises, world.clock.now
        if is_damaged:
            harm = random.Random(1)
            for folder in ("packs/", "maps/", "snapshots/vm2/"):
                name = harm.choice(sorted(each for each in self.objects if each.startswith(folder)))
                self.objects[name] = self.objects[name][:-1] + b"?"

    def begin(self) -> World:
        """Return the same world again, as it was."""
        store = MemoryStore()
        store.objects = dict(self.objects)
        world = World(store, self.images, self.promises)
        world.clock.now = self.now
        return world


def act(verb: str, world: World, copy: MemoryStore) -> None:
    snapshots = [ref.id for ref in world.repository.list_snapshots("vm1")]
    if verb == "backup":
        edit_at_random(world.images["vm1"], 3)
        world.back_up("vm1")
    elif verb == "forget":
        world.forget(snapshots[:1])
    elif verb in ("flatten", "pin", "tag"):
        getattr(world, verb)(snapshots[-1])
    elif verb == "prune":
        world.prune()
    elif verb == "repair":
        repair(world.repository, copy=Repository.open(copy), clock=world.clock)
    elif verb == "parity add":
        add_parity(world.repository, 60, clock=world.clock)
    else:
        repair_packs(world.repository, clock=world.clock)


MAINTENANCE = ("prune", "repair", "parity add", "parity repair")
VERBS = ("backup", "forget", "flatten", "pin", "tag", *MAINTENANCE)


@pytest.mark.parametrize("verb", VERBS)
def test_a_run_frozen_at_any_moment_harms_nobody_and_says_that_it_lost_its_lock(
    verb: str, seed: int, is_long: bool, record_property: Callable[[str, object], None]
) -> None:
    scene = Scene(is_damaged="repair" in verb)
    chance = random.Random(seed)
    moments = count_moments(scene, verb)
    counts = {"done": 0, "lost": 0}
    looks = [at for at, moment in enumerate(moments) if moment.startswith("before get_range locks/.maintenance")]
    taken, last_look = (looks[0], looks[-1]) if looks else (0, 0)
    for at in range(len(moments)) if is_long else choose_moments(moments, chance):
        moment = moments[at]
        outcome = freeze(scene, verb, at)
        counts[outcome] += 1
        if verb in MAINTENANCE and taken <= at <= last_look:
            assert outcome == "lost", moment
    assert counts["lost"]
    record_property("frozen moments", f"{counts} of {len(moments)}")


def choose_moments(moments: list[str], chance: random.Random) -> list[int]:
    """Return the moment at which the lock was just taken, and some of the others."""
    taken = next(at for at, moment in enumerate(moments) if moment.startswith("after put locks/"))
    others = [
        at
        for at, moment in enumerate(moments)
        if at != taken and not (any(f" {read}" in moment for read in _READS) and chance.randrange(SHARE_OF_READS))
    ]
    return [taken, *chance.sample(others, min(TRIED_MOMENTS, len(others)))]


def count_moments(scene: Scene, verb: str) -> list[str]:
    world = scene.begin()
    store = FrozenStore(world.store, 1 << 30, lambda: None)
    with world.on(store):
        act(verb, world, scene.copy)
    return store.moments


def freeze(scene: Scene, verb: str, at: int) -> str:
    """Run a verb that is frozen at one moment; return whether it was done or lost its lock."""
    world = scene.begin()
    inner = world.store
    had_lock: list[bool] = []

    def go_on_without_it() -> None:
        had_lock.append(remove_all_locks(inner))
        with world.on(inner):
            if "repair" in verb:
                repair(world.repository, copy=Repository.open(scene.copy), clock=world.clock)
            world.forget([world.repository.list_snapshots("vm1")[0].id])
            world.prune()
            image = world.images["vm2"]
            edit_at_random(image, 3)
            world.back_up("vm2")
            if verb != "backup":
                world.back_up("vm1")
            world.prune()

    frozen = FrozenStore(inner, at, go_on_without_it)
    outcome = "done"
    try:
        with world.on(frozen):
            act(verb, world, scene.copy)
    except LockLost:
        assert had_lock == [True]
        outcome = "lost"
    except (SnapshotNotFound, RepositoryLocked):
        assert had_lock == [False], "others forgot it before this run had a lock"
    where = f"{verb} frozen {frozen.moments[at] if len(frozen.moments) > at else 'at its end'}"
    try:
        if "repair" in verb:
            repair(world.repository, copy=Repository.open(scene.copy), clock=world.clock)
        assert_promises(inner, world.promises)
        world.prune()
        world.back_up("vm1")
        assert_promises(inner, world.promises)
    except BaseException as error:
        raise AssertionError(where) from error
    return outcome
