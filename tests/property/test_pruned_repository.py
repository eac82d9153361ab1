# SPDX-License-Identifier: Apache-2.0
"""A repository from which snapshots are forgotten, pruned and flattened, beside readers and backups, against a dictionary."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule, run_state_machine_as_test

from deltaimg.engine.backup.run import back_up
from deltaimg.engine.check.findings import Severity
from deltaimg.engine.check.run import check
from deltaimg.engine.content.snapshot import SnapshotContent
from deltaimg.engine.prune.run import prune
from deltaimg.engine.retention.flatten import flatten
from deltaimg.errors import DeltaimgError, StoreUnavailable
from deltaimg.options.backup import BackupOptions
from deltaimg.options.prune import PruneOptions
from deltaimg.repo.index import load_index
from deltaimg.repo.lock import ReaderLock
from deltaimg.repo.repository import Repository, SnapshotRef
from tests.property.test_repository import RepositoryMachine
from tests.support.clock import START, FixedClock
from tests.support.faults import FaultyStore
from tests.support.locks import remove_claims
from tests.support.retention import PausedSource, keep_only, list_manifests


class PrunedRepositoryMachine(RepositoryMachine):
    """`taken` has what each snapshot that was not forgotten must give back."""

    def __init__(self) -> None:
        super().__init__()
        self.readers = ExitStack()

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        kept = data.draw(st.lists(st.sampled_from(range(len(self.taken))), unique=True))
        self.taken = [self.taken[number] for number in sorted(kept)]
        keep_only(self.repository, [manifest.id for manifest, _ in self.taken])
        self.check_manifests()

    @rule(max_unused=st.sampled_from((0.0, 2.0, 50.0)))
    def prune(self, max_unused: float) -> None:
        self.prune_now(self.repository, max_unused)
        self.check_contents()

    @rule(call=st.integers(0, 120), after_effect=st.booleans())
    def prune_until_the_store_fails(self, call: int, after_effect: bool) -> None:
        error = StoreUnavailable("x", "gone")
        faulty = FaultyStore(
            self.repository.objects.store, error, fail_at=call, after_effect=after_effect, is_lasting=True
        )
        try:
            self.prune_now(Repository(faulty, self.repository.config), 0.0)
        except DeltaimgError as met:
            if met is not error:
                raise
        # Its owner, this process, lives on.
        remove_claims(self.repository.objects.store, ".maintenance")
        self.check_contents()

    @precondition(lambda self: self.taken)
    @rule(data=st.data(), depth=st.integers(0, 2))
    def flatten(self, data: st.DataObject, depth: int) -> None:
        manifest, _ = data.draw(st.sampled_from(self.taken))
        ref = SnapshotRef.of(manifest)
        flatten(self.repository, ref, clock=FixedClock(), workers=1, max_depth=depth)
        self.check_contents()

    @rule(name=st.sampled_from("ab"), max_unused=st.sampled_from((0.0, 2.0)))
    def back_up_while_a_prune_runs(self, name: str, max_unused: float) -> None:
        image = self.images[name]
        other = Repository(self.repository.objects.store, self.repository.config)
        source = PausedSource(image, lambda: self.prune_now(other, max_unused))
        manifest = back_up(self.repository, source, name, BackupOptions(workers=1), clock=FixedClock())
        self.taken.append((manifest, bytes(image.content)))
        self.check_manifests()

    @rule()
    def begin_to_read(self) -> None:
        self.readers.enter_context(ReaderLock(self.repository, "reading", START))

    @rule()
    def end_reading(self) -> None:
        self.readers.close()

    @invariant()
    def nothing_is_damaged(self) -> None:
        if hasattr(self, "repository"):
            assert not check(self.repository, workers=1).of(Severity.ERROR)

    def teardown(self) -> None:
        self.readers.close()
        super().teardown()
        if hasattr(self, "repository"):
            keep_only(self.repository, [])
            self.prune_now(self.repository, 0.0)
            self.prune_now(self.repository, 0.0)
            left = {found.name.partition("/")[0] for found in self.repository.objects.store.list("")}
            assert left <= {"config", "verified"}

    # -- parts -------------------------------------------------------------------------------------------------------

    def prune_now(self, repository: Repository, max_unused: float) -> None:
        prune(repository, PruneOptions(max_unused_percent=max_unused), clock=FixedClock())

    def check_manifests(self) -> None:
        """Nothing that is there has changed."""
        stand = {manifest.id: manifest for manifest in list_manifests(self.repository)}
        assert stand == {manifest.id: manifest for manifest, _ in self.taken}

    def check_contents(self) -> None:
        self.check_manifests()
        for manifest, content in self.taken:
            assert (
                SnapshotContent(self.repository, manifest, load_index(self.repository))
                .make_reader()
                .read(0, len(content))
                == content
            )


@pytest.mark.parametrize(("examples", "steps"), [(15, 15), pytest.param(200, 40, marks=pytest.mark.long)])
def test_a_repository_that_is_pruned_is_a_dictionary_of_what_is_kept(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        PrunedRepositoryMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
