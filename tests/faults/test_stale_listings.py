# SPDX-License-Identifier: Apache-2.0
"""Snapshots that are forgotten and pruned between a listing and a read: left out, and nothing is called damaged."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from deltaimg.api.compare import diff
from deltaimg.api.repositories import find_snapshot, list_snapshots
from deltaimg.api.retention import flatten, plan_prune
from deltaimg.api.verification import check, verify
from deltaimg.engine.check.findings import Severity
from deltaimg.engine.inspect.listing import describe_snapshots
from deltaimg.engine.inspect.run import inspect_repository, inspect_snapshot
from deltaimg.engine.inspect.stored_content import find_stored_content
from deltaimg.engine.prune.run import prune
from deltaimg.engine.retention.forget import forget, forget_images
from deltaimg.errors import SnapshotNotFound
from deltaimg.options.flatten import FlattenOptions
from deltaimg.options.keep import Policy
from deltaimg.options.prune import PruneOptions
from deltaimg.repo.index import load_index
from deltaimg.repo.repository import Repository, SnapshotRef
from deltaimg.repo.retention import plan_named, plan_policy
from deltaimg.store.memory import MemoryStore
from tests.support.clock import START, FixedClock
from tests.support.images import SyntheticImage
from tests.support.repositories import back_up_image, make_repository
from tests.support.retention import HookedStore
from tests.support.wrapping import WatchedStore

Use = Callable[[Repository, SnapshotRef], object]


def make_past() -> tuple[Repository, SnapshotRef]:
    """Return a repository of four snapshots, and the second of them, which needs content and a map that no other one does."""
    repository, image, clock = make_repository(), SyntheticImage(300_000, seed=3), FixedClock()
    refs = []
    for _ in range(4):
        image.write_random(0, 200_000)
        clock.advance(days=1)
        refs.append(SnapshotRef.of(back_up_image(repository, image, clock=clock, delta="none")))
    return repository, refs[1]


def list_all(repository: Repository, ref: SnapshotRef) -> None:
    assert all(
        each.damage is None for each in describe_snapshots(repository, list_snapshots(repository), with_depth=True)
    )


def verify_all(repository: Repository, ref: SnapshotRef) -> None:
    assert not any(each.damage for each in verify(repository))


def check_all(repository: Repository, ref: SnapshotRef) -> None:
    assert not check(repository).of(Severity.ERROR)


def sum_up(repository: Repository, ref: SnapshotRef) -> None:
    assert not inspect_repository(repository).damaged


def show(repository: Repository, ref: SnapshotRef) -> None:
    manifest = find_snapshot(repository, ref.id).manifest
    inspect_snapshot(repository, manifest, load_index(repository))
    find_stored_content(repository, manifest, load_index(repository))


def verify_one(repository: Repository, ref: SnapshotRef) -> None:
    (result,) = verify(repository, [ref.id])
    assert not result.damage


def compare(repository: Repository, ref: SnapshotRef) -> None:
    diff(repository, ref.id, "vm1")


def plan_forget(repository: Repository, ref: SnapshotRef) -> None:
    plan = partial(plan_policy, policy=Policy(last=1), now=START.replace(year=2030))
    (result,) = forget_images(repository, {"vm1": plan}, is_dry_run=True)
    assert result.plan is not None


def plan_a_prune(repository: Repository, ref: SnapshotRef) -> None:
    plan_prune(repository)


USES: list[Use] = [list_all, verify_all, check_all, sum_up, show, verify_one, compare, plan_forget, plan_a_prune]


def forget_and_prune(repository: Repository, ref: SnapshotRef) -> None:
    """Do it all at once, as far as readers' locks allow."""
    forget(repository, ref.image, partial(plan_named, ids=frozenset([ref.id])), clock=FixedClock())
    prune(repository, PruneOptions(max_unused_percent=0), clock=FixedClock())


@pytest.mark.parametrize("use", USES, ids=lambda use: use.__name__)
def test_a_snapshot_that_goes_while_it_is_listed_is_left_out(use: Use) -> None:
    past, ref = make_past()
    counting = WatchedStore(past.objects.store)
    use(Repository(counting, past.config), ref)
    named = use in (show, verify_one, compare)
    calls = sorted({call for call in counting.calls if call.split()[0] in ("get", "get_range", "list")})
    for call in calls:
        store = MemoryStore()
        store.objects = dict(past.objects.store.objects)  # type: ignore[attr-defined]
        others = Repository(store, past.config)
        hooked = HookedStore(store, call, partial(forget_and_prune, others, ref))
        try:
            use(Repository(hooked, past.config), ref)
        except SnapshotNotFound:
            assert named, call


def test_flattening_all_passes_over_a_snapshot_that_goes_before_its_turn() -> None:
    past, ref = make_past()
    later = past.list_snapshots()[2]
    hooked = HookedStore(past.objects.store, "put locks/vm1/", partial(forget_and_prune, past, later))
    results = flatten(Repository(hooked, past.config), options=FlattenOptions(max_depth=1))
    assert len(results) == 3
    assert ref.id in {each.manifest.id for each in results}
