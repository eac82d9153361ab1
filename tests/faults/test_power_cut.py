# SPDX-License-Identifier: Apache-2.0
"""The power fails at every call to the operating system, in every way in which a disk may reorder, tear or lose writes."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from deltaimg.store.interface import Confirm, Parts, always
from deltaimg.store.local import LocalStore
from tests.support.power import Objects, SimulatedDisk
from tests.support.power_cut import Explorer, Scenario
from tests.support.repositories import KEY
from tests.support.world import World

Report = Callable[[str, object], None]


def nothing(world: World) -> None: ...


def one_backup(world: World) -> None:
    world.init()
    world.back_up()


def some_backups(world: World) -> None:
    one_backup(world)
    for _ in range(3):
        world.edit()
        world.back_up()
    world.back_up("vm2")


def next_backup(world: World) -> None:
    world.edit()
    world.back_up()


def ids(world: World) -> list[str]:
    return [ref.id for ref in world.repository.list_snapshots("vm1")]


def forget_the_middle(world: World) -> None:
    world.forget(ids(world)[1:3])


def forget_the_oldest(world: World) -> None:
    world.forget(ids(world)[:3])


def forgotten(world: World) -> None:
    some_backups(world)
    forget_the_oldest(world)


def damaged(world: World) -> None:
    """An index is lost, another damaged."""
    some_backups(world)
    objects = world.store.objects  # type: ignore[attr-defined]
    lost, hurt, *_ = sorted(name for name in objects if name.startswith("index/"))
    del objects[lost]
    objects[hurt] = objects[hurt][:-9] + bytes(9)


def backup_with_deltas(world: World) -> None:
    world.edit()
    world.back_up(delta="best")


SCENARIOS = [
    Scenario("init and a first backup", nothing, one_backup),
    Scenario("incremental", one_backup, next_backup),
    Scenario("incremental with deltas", some_backups, backup_with_deltas),
    Scenario("forget in the middle", some_backups, forget_the_middle),
    Scenario("forget the oldest", some_backups, forget_the_oldest),
    Scenario("prune with repack", forgotten, World.prune),
    Scenario("forget and prune", some_backups, lambda world: (forget_the_oldest(world), world.prune())),
    Scenario("flatten", some_backups, lambda world: world.flatten(ids(world)[-1])),
    Scenario("flatten and prune", some_backups, lambda world: (world.flatten(ids(world)[-1]), world.prune())),
    Scenario("pin", one_backup, lambda world: world.pin(ids(world)[0])),
    Scenario("repair", damaged, World.repair, is_repair=True),
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_no_power_cut_costs_a_committed_snapshot(
    scenario: Scenario, seed: int, is_long: bool, record_property: Report
) -> None:
    explorer = Explorer(random.Random(seed), second_cuts=None if is_long else 3)
    explorer.explore(scenario)
    record_property("power cuts", str(explorer.tally))
    assert explorer.tally.tried > 10


SEALED = ("incremental", "forget in the middle", "pin")
"""Tried with encrypted repositories in every run, the others in long runs."""


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_no_power_cut_costs_a_snapshot_of_an_encrypted_repository(
    scenario: Scenario, seed: int, is_long: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if scenario.name not in SEALED and not is_long:
        pytest.skip("takes minutes; run with --long")
    monkeypatch.setenv("XDG_STATE_HOME", "none")  # each cut is a past of its own
    explorer = Explorer(random.Random(seed), bound=64 if is_long else 8, second_cuts=0, key=KEY)
    explorer.explore(scenario)
    assert explorer.tally.tried >= 4


FOLDERS = ["index", "locks", "locks/vm1", "maps", "packs", "signatures", "snapshots", "snapshots/vm1"]


def test_a_folder_left_by_a_process_that_died_is_made_durable_before_it_is_used(seed: int) -> None:
    """Such a folder is there, but a power cut may still take it, with all that was put in it meanwhile."""

    def make_disk(objects: Objects) -> SimulatedDisk:
        disk = SimulatedDisk(objects)
        for name in FOLDERS:
            disk.make_folder(f"{disk.folder}/{name}")
        return disk

    Explorer(random.Random(seed), make_disk=make_disk).explore(Scenario("a backup", World.init, World.back_up))


# -- the simulator finds what it is meant to find ---------------------------------------------------------------------


class NeverSyncsFiles(SimulatedDisk):
    def sync(self, descriptor: int) -> None: ...


class NeverSyncsFolders(SimulatedDisk):
    def sync_folder(self, path: str) -> None: ...


class NamesBeforeItWrites(SimulatedDisk):
    """Writes and syncs a file only once it has its name."""

    def create(self, path: str) -> int:
        descriptor = super().create(path)
        self._late = {**getattr(self, "_late", {}), path: (descriptor, [])}
        return descriptor

    def write(self, descriptor: int, parts: Parts) -> None:
        next(kept for each, kept in self._late.values() if each == descriptor).extend(parts)

    def sync(self, descriptor: int) -> None: ...

    def close(self, descriptor: int) -> None: ...

    def link(self, source: str, target: str) -> None:
        super().link(source, target)
        self._write_late(source)

    def rename(self, source: str, target: str) -> None:
        super().rename(source, target)
        self._write_late(source)

    def _write_late(self, source: str) -> None:
        if source in self._late:
            descriptor, parts = self._late.pop(source)
            super().write(descriptor, parts)
            super().sync(descriptor)
            super().close(descriptor)


class CommitsFirst(LocalStore):
    """Keeps packs back until the manifest is stored."""

    def __init__(self, path: str, port: SimulatedDisk) -> None:
        super().__init__(path, port)
        self.kept_back: dict[str, Parts] = {}

    def put(self, name: str, parts: Parts, confirm: Confirm = always) -> int:
        if name.startswith("packs/"):
            self.kept_back[name] = parts
            return sum(map(len, parts))
        size_bytes = super().put(name, parts, confirm)
        if name.startswith("snapshots/"):
            for each in list(self.kept_back):
                super().put(each, self.kept_back.pop(each))
        return size_bytes

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        if name in self.kept_back:
            return b"".join(self.kept_back[name])[offset : offset + length]
        return super().get_range(name, offset, length)


@pytest.mark.parametrize(
    "mutant",
    [{"make_disk": NeverSyncsFiles}, {"make_disk": NeverSyncsFolders}, {"make_disk": NamesBeforeItWrites},
     {"make_store": CommitsFirst}],
    ids=["files are never synced", "folders are never synced", "names come before bytes", "manifests come before packs"],
)  # fmt: skip
def test_a_store_that_breaks_a_rule_is_found_out(mutant: dict[str, object], seed: int) -> None:
    explorer = Explorer(random.Random(seed), **mutant)  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="power cut after call"):
        explorer.explore(Scenario("an incremental", one_backup, next_backup))
