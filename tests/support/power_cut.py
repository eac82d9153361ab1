# SPDX-License-Identifier: Apache-2.0
"""Cut the power at every moment of what a `World` does, and see what is left of the repository.

Two cuts are tried as well: the next run after a cut is itself cut short, since it has work to finish that no first run has.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from deltaimg.crypto.key_slots import Key
from deltaimg.store.interface import Store
from deltaimg.store.local import LocalStore
from deltaimg.store.memory import MemoryStore
from tests.support.images import SyntheticImage
from tests.support.power import Objects, SimulatedDisk
from tests.support.world import Promises, World, assert_promises, make_images, reboot

Act = Callable[[World], None]
MakeDisk = Callable[[Objects], SimulatedDisk]
MakeStore = Callable[[str, SimulatedDisk], Store]


@dataclass(frozen=True, slots=True)
class Scenario:
    """`act` is what the power is cut in; `prepare` makes the repository that it finds."""

    name: str
    prepare: Act
    act: Act
    is_repair: bool = False
    """What `prepare` leaves is damaged, so that promises hold only once `act` was done, or done again."""


@dataclass(slots=True)
class CutState:
    """What a cut left: after how many calls, of which the last is named, and what was promised by then."""

    objects: Objects
    promises: Promises
    where: str


@dataclass
class Tally:
    """How much was tried."""

    cuts: int = 0
    laid_out: int = 0
    """States that were put together, equal ones included."""
    tried: int = 0
    """Different ones, each of which was opened, restored from and backed up into."""
    sampled_cuts: int = 0
    """Cuts that could leave more states than the bound, of which some were drawn."""

    def __str__(self) -> str:
        drawn = f", {self.sampled_cuts} of them sampled" if self.sampled_cuts else ""
        return f"{self.tried} states tried: {self.laid_out} laid out at {self.cuts} cuts{drawn}"


@dataclass
class Explorer:
    """Tries scenarios; an AssertionError names the first cut that breaks a promise.

    Args:
        bound: states that are laid out exhaustively at one cut.
        key: encrypts the repositories.
        second_cuts: states after which the next run is cut as well, drawn at random; None for all of them.
    """

    chance: random.Random
    bound: int = 64
    second_cuts: int | None = 0
    make_disk: MakeDisk = SimulatedDisk
    make_store: MakeStore = LocalStore
    key: Key | None = None
    tally: Tally = field(default_factory=Tally)

    def explore(self, scenario: Scenario) -> None:
        past = World(MemoryStore(), make_images(), key=self.key)
        scenario.prepare(past)
        objects = reboot(past.store.objects)  # type: ignore[attr-defined]
        states, images = self._record(objects, past.promises, past.images, scenario.act)
        twice = states if self.second_cuts is None else self.chance.sample(states, min(self.second_cuts, len(states)))
        chosen = set(map(id, twice))
        again = repair_and_run if scenario.is_repair else run_again
        for state in states:
            where = f"{scenario.name}, {state.where}"
            self._try(state, images, again, where, is_sound=not scenario.is_repair)
            if id(state) in chosen:
                then, later = self._record(reboot(state.objects), state.promises, images, again)
                for each in then:
                    self._try(each, later, again, f"{where}; next run, {each.where}", is_sound=not scenario.is_repair)

    def _record(
        self, objects: Objects, promises: Promises, images: dict[str, SyntheticImage], act: Act
    ) -> tuple[list[CutState], dict[str, SyntheticImage]]:
        """Do `act` on a disk with `objects`; return what each cut can leave, and the images as they are afterwards."""
        found: dict[frozenset[tuple[str, bytes]], CutState] = {}
        disk = self.make_disk(objects)
        world = World(self.make_store(disk.folder, disk), images, promises, self.key)
        calls = 0

        def note(what: str) -> None:
            nonlocal calls
            calls += 1
            self.tally.cuts += 1
            states, is_all = disk.states(self.bound, self.chance)
            self.tally.laid_out += len(states)
            self.tally.sampled_cuts += not is_all
            for each in states:
                key = frozenset(each.items())
                state = found.get(key)
                if state is None:
                    found[key] = CutState(each, world.promises.copy(), f"power cut after call {calls} ({what})")
                else:
                    state.promises.committed |= world.promises.committed
                    state.promises.is_made |= world.promises.is_made

        disk.on_cut = note
        world.on_return = lambda: note("return")
        act(world)
        disk.on_cut = None
        return list(found.values()), world.images

    def _try(
        self, state: CutState, images: dict[str, SyntheticImage], again: Act, where: str, *, is_sound: bool
    ) -> None:
        """Assert all promises of a state, after the next run and, if it has to be `is_sound`, before it."""
        self.tally.tried += 1
        try:
            disk = SimulatedDisk(reboot(state.objects))
            world = World(LocalStore(disk.folder, disk), images, state.promises, self.key)
            if is_sound:
                assert_promises(world.store, world.promises)
            again(world)
            assert_promises(world.store, world.promises)
        except Exception as error:
            left = "\n".join(f"  {name}, {len(data)} bytes" for name, data in sorted(state.objects.items()))
            raise AssertionError(f"{where}: {error!r}\nthis was left:\n{left}") from error


def run_again(world: World) -> None:
    """What the next run after a power cut does."""
    if not world.promises.is_made and "config" not in {found.name for found in world.store.list("")}:
        world.init()
    world.edit()
    for name in world.images:
        world.back_up(name)
    world.prune()


def repair_and_run(world: World) -> None:
    """The same for a repository that was being repaired."""
    world.repair()
    run_again(world)
