# SPDX-License-Identifier: Apache-2.0
"""Backups come and go, runs die, others get in between: a repository stays a dictionary of images."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from deltaimg.errors import (
    LockLost,
    ObjectNotFound,
    RepositoryLocked,
    SnapshotNotFound,
    SnapshotPinned,
    StoreUnavailable,
)
from deltaimg.store.memory import MemoryStore
from tests.support.faults import FaultyStore
from tests.support.frozen import FrozenStore, remove_all_locks
from tests.support.images import PAGE, SyntheticImage
from tests.support.visits import VisitedStore
from tests.support.world import World, assert_promises, reboot

MAX_BYTES = 60 * PAGE
VERBS = ("back_up", "forget", "prune", "flatten", "pin", "tag")
DEAD = StoreUnavailable("x", "the test took it away")
names = st.sampled_from(("vm1", "vm2"))
offsets = st.integers(0, MAX_BYTES)
lengths = st.sampled_from((1, 100, PAGE, 5 * PAGE, 17 * PAGE))
calls = st.integers(0, 60)
"""More than most runs make, so that some come to their end."""


class LifecycleMachine(RuleBasedStateMachine):
    """`world` does what it is told; its promises are the dictionary."""

    @initialize(size=st.integers(1, MAX_BYTES), seed=st.integers(0, 99))
    def start(self, size: int, seed: int) -> None:
        self.store = MemoryStore()
        self.world = World(self.store, {name: SyntheticImage(size, seed) for name in ("vm1", "vm2")})
        self.world.init()
        for name, image in self.world.images.items():
            image.write_pages(0, size // 2)
            self.world.back_up(name)

    @rule(
        name=names, offset=offsets, length=lengths, kind=st.sampled_from(("random", "pages", "zero", "punch", "move"))
    )
    def edit(self, name: str, offset: int, length: int, kind: str) -> None:
        image = self.world.images[name]
        aligned = offset // PAGE * PAGE
        if kind == "random":
            image.write_random(offset, length)
        elif kind == "pages":
            image.write_pages(aligned, length)
        elif kind == "zero":
            image.zero(aligned, length)
        elif kind == "punch":
            image.punch(offset, length)
        else:
            image.move(aligned, (MAX_BYTES - aligned) // PAGE * PAGE, length)

    @rule(name=names, size=st.integers(1, MAX_BYTES))
    def resize(self, name: str, size: int) -> None:
        self.world.images[name].resize(size)

    @precondition(lambda self: self.world.promises.committed)
    @rule(name=names, data=st.data())
    def revert(self, name: str, data: st.DataObject) -> None:
        """Content that was forgotten is written again, so that backups meet records that nothing needs any more."""
        content = data.draw(st.sampled_from(sorted(self.world.promises.contents.values())))
        self.world.images[name].resize(len(content))
        self.world.images[name].write(0, content)

    @rule(verb=st.sampled_from(VERBS), name=names, data=st.data())
    def do(self, verb: str, name: str, data: st.DataObject) -> None:
        self.choose(verb, name, data)()

    @rule(verb=st.sampled_from(VERBS), name=names, call=calls, after_effect=st.booleans(), data=st.data())
    def do_and_die(self, verb: str, name: str, call: int, after_effect: bool, data: st.DataObject) -> None:
        act = self.choose(verb, name, data)
        faulty = FaultyStore(self.store, DEAD, fail_at=call, after_effect=after_effect, is_lasting=True)
        with suppress(StoreUnavailable), self.world.on(faulty):
            act()
        if faulty.has_failed:
            self.store.objects = reboot(self.store.objects)
            self.world.adopt(name)
        assert_promises(self.store, self.world.promises)

    @rule(
        verb=st.sampled_from(VERBS), name=names, other_verb=st.sampled_from(VERBS), other_name=names,
        call=calls, is_after=st.booleans(), data=st.data(),
    )  # fmt: skip
    def do_while_another_process_works(
        self, verb: str, name: str, other_verb: str, other_name: str, call: int, is_after: bool, data: st.DataObject
    ) -> None:
        act, other = self.choose(verb, name, data), self.choose(other_verb, other_name, data)

        def meanwhile() -> None:
            with self.world.on(self.store):
                self.tolerate(other)

        with self.world.on(VisitedStore(self.store, call, meanwhile, is_after=is_after)):
            self.tolerate(act)
        assert_promises(self.store, self.world.promises)

    @rule(
        verb=st.sampled_from(VERBS), name=names, others=st.lists(st.tuples(st.sampled_from(VERBS), names), max_size=3),
        moment=st.integers(0, 150), data=st.data(),
    )  # fmt: skip
    def do_and_freeze_while_others_remove_the_lock_and_go_on(
        self, verb: str, name: str, others: list[tuple[str, str]], moment: int, data: st.DataObject
    ) -> None:
        act = self.choose(verb, name, data)
        chosen = [self.choose(*other, data) for other in others]

        def meanwhile() -> None:
            remove_all_locks(self.store)
            with self.world.on(self.store):
                for other in chosen:
                    self.tolerate(other)

        with self.world.on(FrozenStore(self.store, moment, meanwhile)):
            self.tolerate(act)
        assert_promises(self.store, self.world.promises)

    @precondition(lambda self: self.world.promises.committed)
    @rule()
    def restore_all(self) -> None:
        assert_promises(self.store, self.world.promises)

    def choose(self, verb: str, name: str, data: st.DataObject) -> Callable[[], object]:
        """Return what a verb does, with all that is left to chance drawn."""
        if verb == "back_up":
            delta = data.draw(st.sampled_from(("auto", "none", "best")))
            return lambda: self.world.back_up(name, delta=delta)
        if verb == "prune":
            return self.world.prune
        snapshots = [ref.id for ref in self.world.repository.list_snapshots(name)]
        if not snapshots:
            return lambda: self.world.back_up(name)
        if verb == "forget":
            chosen = data.draw(st.lists(st.sampled_from(snapshots), min_size=1, max_size=3, unique=True))
            return lambda: self.world.forget(chosen)
        chosen_one = data.draw(st.sampled_from(snapshots))
        return lambda: getattr(self.world, verb)(chosen_one)

    def tolerate(self, act: Callable[[], object]) -> None:
        """Act; that somebody else is at work, or has forgotten what was to be changed, is no failure."""
        with suppress(RepositoryLocked, LockLost, SnapshotNotFound, SnapshotPinned, ObjectNotFound):
            act()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.prune()
            assert_promises(self.store, self.world.promises)


def test_a_repository_stays_a_dictionary_of_images_whatever_happens(
    is_long: bool, record_property: Callable[[str, object], None]
) -> None:
    examples, steps = (300, 60) if is_long else (40, 25)
    run_state_machine_as_test(
        LifecycleMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate,),  # shrinking a history takes longer than reading it
        ),
    )
    record_property("steps", f"up to {examples} histories of {steps} steps")
