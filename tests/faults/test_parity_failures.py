# SPDX-License-Identifier: Apache-2.0
"""Every call to the store fails once while parity is added: what was protected stays protected, and the next run succeeds."""

from __future__ import annotations

from contextlib import suppress

import pytest

from deltaimg.engine.parity.protection import survey_parity
from deltaimg.engine.parity.repair import repair_packs
from deltaimg.errors import DeltaimgError, StoreError, StoreFull, StoreUnavailable
from deltaimg.format.pack import pack_name
from deltaimg.repo.parity import recover_pack
from deltaimg.repo.repository import Repository
from deltaimg.store.memory import MemoryStore
from tests.support.clock import FixedClock
from tests.support.faults import FaultyStore
from tests.support.parity import protect, repository_of_packs, store_packs
from tests.support.wrapping import WatchedStore


def protected_and_grown() -> tuple[Repository, MemoryStore, dict[str, bytes]]:
    """Return a repository with parity for some packs, and new packs with which their group is to be remade."""
    repository, store, packs = repository_of_packs([20_000] * 3, seed=1)
    protect(repository, 40)
    store_packs(repository, [20_000] * 3, seed=2)
    return repository, store, packs


def count_calls() -> int:
    repository, store, _ = protected_and_grown()
    counting = WatchedStore(store)
    assert protect(Repository(counting, repository.config), 40).removed_groups == 1
    return len(counting.calls)


def assert_protected(repository: Repository, packs: dict[str, bytes]) -> None:
    """Lose one pack after another; each is recovered."""
    for pack, content in packs.items():
        repository.objects.store.delete(pack_name(pack))
        assert recover_pack(repository, pack) == content
        repository.objects.store.put(pack_name(pack), [content])


@pytest.mark.parametrize("is_lasting", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("after_effect", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("error", [StoreFull("x", "no space"), StoreUnavailable("x", "gone")], ids=["full", "gone"])
def test_adding_parity_survives_the_failure_of_any_store_call(
    error: StoreError, after_effect: bool, is_lasting: bool
) -> None:
    calls = count_calls()
    assert calls > 15
    for number in range(calls):
        repository, store, packs = protected_and_grown()
        faulty = FaultyStore(store, error, fail_at=number, after_effect=after_effect, is_lasting=is_lasting)
        met = try_protect(Repository(faulty, repository.config))
        assert met in (None, error), number
        for name in [name for name in store.objects if name.startswith("locks/")]:
            store.delete(name)  # its removal may be what failed, and its owner, this process, lives on
        assert_protected(repository, dict(list(packs.items())[:1]))
        done = protect(repository, 40)
        assert done.damaged == ()
        survey = survey_parity(repository)
        assert (survey.unprotected_packs, survey.damage) == (0, ())
        assert_protected(repository, packs)


def try_protect(repository: Repository) -> DeltaimgError | None:
    """Add parity and return the error that ended it, if one did; anything but a DeltaimgError fails the test."""
    try:
        protect(repository, 40)
    except DeltaimgError as error:
        return error
    return None


@pytest.mark.parametrize("error", [StoreFull("x", "no space"), StoreUnavailable("x", "gone")], ids=["full", "gone"])
def test_a_repair_that_fails_at_any_store_call_can_be_run_again(error: StoreError) -> None:
    for number in range(1000):
        repository, store, packs = protected_and_grown()
        store.delete(pack_name(next(iter(packs))))
        faulty = FaultyStore(store, error, fail_at=number)
        with suppress(StoreError):
            repair_packs(Repository(faulty, repository.config), clock=FixedClock())
        for name in [name for name in store.objects if name.startswith("locks/")]:
            store.delete(name)
        assert repair_packs(repository, clock=FixedClock()).failed == ()
        assert all(store.objects[pack_name(pack)] == content for pack, content in packs.items())
        if not faulty.has_failed:
            assert number > 15
            return
    pytest.fail("a repair makes more than a thousand calls")
