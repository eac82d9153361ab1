# SPDX-License-Identifier: Apache-2.0
"""A repository against a dictionary: whatever happens to images, every snapshot restores what was backed up."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from deltaimg.engine.content.snapshot import SnapshotContent
from deltaimg.engine.inspect.diff import diff_snapshots
from deltaimg.engine.restore.verify import verify
from deltaimg.format.manifest import Manifest
from deltaimg.repo.index import load_index
from deltaimg.store.interface import Store
from deltaimg.store.local import LocalStore
from deltaimg.store.memory import MemoryStore
from tests.support.images import PAGE, SyntheticImage
from tests.support.repositories import assert_restores, back_up_image, make_repository

MAX_BYTES = 80 * PAGE
offsets = st.integers(0, MAX_BYTES)
lengths = st.sampled_from((1, 100, PAGE, 5 * PAGE, 17 * PAGE))


class RepositoryMachine(RuleBasedStateMachine):
    """Two images are edited and backed up; `taken` has what each snapshot must give back."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[tuple[Manifest, bytes]] = []

    def make_store(self) -> Store:
        return MemoryStore()

    @initialize(size=st.integers(1, MAX_BYTES), seed=st.integers(0, 99))
    def start(self, size: int, seed: int) -> None:
        self.repository = make_repository(self.make_store())
        self.images = {"a": SyntheticImage(size, seed), "b": SyntheticImage(size, seed)}

    @rule(
        name=st.sampled_from("ab"),
        offset=offsets,
        length=lengths,
        kind=st.sampled_from(("random", "pages", "zero", "punch")),
    )
    def edit(self, name: str, offset: int, length: int, kind: str) -> None:
        image = self.images[name]
        aligned = offset // PAGE * PAGE
        if kind == "random":
            image.write_random(offset, length)
        elif kind == "pages":
            image.write_pages(aligned, length)
        elif kind == "zero":
            image.zero(aligned, length)
        else:
            image.punch(offset, length)

    @rule(name=st.sampled_from("ab"), source=offsets, destination=offsets, length=lengths)
    def move(self, name: str, source: int, destination: int, length: int) -> None:
        self.images[name].move(source // PAGE * PAGE, destination // PAGE * PAGE, length)

    @rule(name=st.sampled_from("ab"), size=st.integers(1, MAX_BYTES))
    def resize(self, name: str, size: int) -> None:
        self.images[name].resize(size)

    @rule(name=st.sampled_from("ab"))
    def back_up(self, name: str) -> None:
        manifest = back_up_image(self.repository, self.images[name], name, allow_shrink=True)
        self.taken.append((manifest, bytes(self.images[name].content)))

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def restore_one(self, data: st.DataObject) -> None:
        assert_restores(self.repository, *data.draw(st.sampled_from(self.taken)))

    @precondition(lambda self: self.taken)
    @rule(data=st.data(), offset=offsets, length=lengths)
    def read_a_range(self, data: st.DataObject, offset: int, length: int) -> None:
        manifest, content = data.draw(st.sampled_from(self.taken))
        assert (
            SnapshotContent(self.repository, manifest, load_index(self.repository)).make_reader().read(offset, length)
            == content[offset : offset + length]
        )

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def compare_two(self, data: st.DataObject) -> None:
        older, old = data.draw(st.sampled_from(self.taken))
        newer, new = data.draw(st.sampled_from(self.taken))
        size = max(len(old), len(new))
        old, new = old.ljust(size, b"\0"), new.ljust(size, b"\0")
        expected = {at for at in range(0, size, PAGE) if old[at : at + PAGE] != new[at : at + PAGE]}
        found = diff_snapshots(self.repository, older, newer).extents
        assert {at for each in found for at in range(each.start, each.end, PAGE)} == expected

    @invariant()
    def snapshots_are_in_order(self) -> None:
        if not hasattr(self, "repository"):
            return
        for name in "ab":
            listed = [ref.id for ref in self.repository.list_snapshots(name)]
            assert listed == [manifest.id for manifest, _ in self.taken if manifest.image == name]

    def teardown(self) -> None:
        if self.taken:
            reports = verify(self.repository, self.repository.list_snapshots(), workers=1)
            assert not any(report.damage for report in reports)


class LocalRepositoryMachine(RepositoryMachine):
    """The same in a folder."""

    def make_store(self) -> Store:
        self.folder = tempfile.TemporaryDirectory(prefix="deltaimg-test-")
        return LocalStore(str(Path(self.folder.name) / "repo"))

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "folder"):
            self.folder.cleanup()


@pytest.mark.parametrize(("machine", "examples"), [(RepositoryMachine, 30), (LocalRepositoryMachine, 8)])
def test_a_repository_is_a_dictionary_of_images(machine: type[RepositoryMachine], examples: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
