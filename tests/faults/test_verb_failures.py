# SPDX-License-Identifier: Apache-2.0
"""Each call of each verb to the operating system fails, or reads less than there is: no promise is broken, and the verb can be
run again."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest

from deltaimg.errors import DeltaimgError, StoreFull
from deltaimg.store.local import LocalStore
from deltaimg.store.memory import MemoryStore
from tests.support.components import loop_file_system
from tests.support.faults import FaultyPort
from tests.support.power import Objects, SimulatedDisk
from tests.support.power_cut import run_again
from tests.support.world import World, assert_promises, make_images, reboot

FAILURES = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "short read": None}
Verb = Callable[[World], object]


def middle(world: World) -> list[str]:
    return [ref.id for ref in world.repository.list_snapshots("vm1")][1:3]


def back_up(world: World) -> None:
    world.edit()
    world.back_up(delta="best")


VERBS: dict[str, Verb] = {
    "backup": back_up,
    "forget": lambda world: world.forget(middle(world)),
    "flatten": lambda world: world.flatten(middle(world)[1]),
    "pin": lambda world: world.pin(middle(world)[0]),
    "prune": World.prune,
    "repair": World.repair,
}


@cache
def make_past(verb: str) -> World:
    """Return a world of four backups of one image and one of another; for a prune, half of them are forgotten."""
    past = World(MemoryStore(), make_images())
    past.init()
    for _ in range(4):
        past.edit()
        past.back_up()
    past.back_up("vm2")
    if verb == "prune":
        past.forget(middle(past))
    return past


def copy_past(verb: str) -> tuple[SimulatedDisk, World]:
    """Return a disk with that world's repository, and the world on it."""
    past = make_past(verb)
    objects: Objects = past.store.objects  # type: ignore[attr-defined]
    disk = SimulatedDisk(reboot(objects))
    return disk, World(LocalStore(disk.folder, disk), past.images, past.promises)


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_survives_the_failure_of_any_system_call(
    verb: str, failure: str, seed: int, is_long: bool, record_property: Callable[[str, object], None]
) -> None:
    step = 1 if is_long else 5
    call = seed % step
    while True:
        disk, world = copy_past(verb)
        port = FaultyPort(FAILURES[failure], fail_at=call, inner=disk)
        with suppress(DeltaimgError), world.on(LocalStore(disk.folder, port)):
            VERBS[verb](world)
        if not port.has_failed:
            break
        after = SimulatedDisk(reboot(disk.objects()))
        again = World(LocalStore(after.folder, after), world.images, world.promises)
        again.adopt("vm1")
        assert_promises(again.store, again.promises)
        run_again(again)
        assert_promises(again.store, again.promises)
        call += step
    record_property("failing calls", f"{call // step} of {call} tried")
    assert call > 4


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_survives_a_full_disk(tmp_path: Path, verb: str) -> None:
    """A real file system, filled up to so many bytes; then room is made."""
    with loop_file_system("ext4", tmp_path / "disk", 16 << 20) as disk:
        for left in (0, 1, 8, 32):
            _, past = copy_past(verb)
            folder = disk.folder / f"repo-{left}"
            store = LocalStore(str(folder))
            for name, data in make_past(verb).store.objects.items():  # type: ignore[attr-defined]
                store.put(name, [data])
            world = World(store, past.images, past.promises)
            ballast = disk.folder / "ballast"
            fill(ballast, left)
            with suppress(StoreFull):
                VERBS[verb](world)
            ballast.unlink()
            assert_promises(store, world.promises)
            run_again(world)
            assert_promises(store, world.promises)


def fill(ballast: Path, left: int) -> None:
    """Write until the disk is full, but for `left` pages."""
    with suppress(OSError), open(ballast, "wb", buffering=0) as file:
        while file.write(bytes(65536)):
            pass
    with suppress(OSError), open(ballast, "ab", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    with open(ballast, "r+b") as file:
        file.truncate(ballast.stat().st_size - left * 4096)
