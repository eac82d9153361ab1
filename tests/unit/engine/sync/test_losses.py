# SPDX-License-Identifier: Apache-2.0
"""What a damaged source cannot give costs the snapshots that need it, and no others."""

from __future__ import annotations

import pytest

from deltaimg.engine.sync.request import SyncRequest
from deltaimg.engine.sync.run import sync
from deltaimg.errors import DigestMismatch, StoreUnavailable
from deltaimg.repo.repository import Repository
from deltaimg.store.memory import MemoryStore
from tests.support.clock import FixedClock
from tests.support.faults import FaultyStore
from tests.support.flips import flip_object
from tests.support.history import forget_ids
from tests.support.images import make_incompressible_image, make_mixed_image
from tests.support.repositories import KEY, Warnings, make_repository
from tests.support.sync import Family, make_family, make_like, names_of, run_sync, watch_calls


@pytest.mark.parametrize("folder", ["packs/", "maps/", "signatures/", "index/", "snapshots/"])
@pytest.mark.parametrize("is_lost", [False, True])
def test_what_is_whole_of_a_damaged_source_is_copied_and_the_rest_named(folder, is_lost):
    family = make_family(2)
    image = make_incompressible_image(400_000, seed=9)
    family.back_up(image, "alone")
    before = {name for name in family.source.objects.store.objects if name.startswith(folder)}
    image.write_random(0, 200_000)
    damaged = family.back_up(image, "alone")
    new = {name for name in family.source.objects.store.objects if name.startswith(folder)} - before
    (name,) = new
    if is_lost:
        del family.source.objects.store.objects[name]
    else:
        flip_object(family.source.objects.store, name, 90 if folder == "packs/" else -30)
    destination = make_like(family.source)
    result = run_sync(family.source, destination)
    expected = [] if folder == "snapshots/" and is_lost else [damaged]
    assert [each.ref.id for each in result.failed] == expected
    assert all("first" in str(each.error) for each in result.failed)
    family.assert_whole(destination, 3)
    assert run_sync(family.source, destination).copied == ()
    family.assert_whole(destination, 3)


def test_a_damaged_record_costs_the_snapshots_that_need_it_and_no_others():
    family = Family(make_repository(MemoryStore("first")))
    image = make_incompressible_image(2 << 20, seed=2)
    first = family.back_up(image)
    image.zero(0, 1 << 20)  # the blocks of the damaged record
    second = family.back_up(image)
    (pack,) = names_of(family.source, "packs/")
    flip_object(family.source.objects.store, pack, 300)
    destination = make_like(family.source)
    result = run_sync(family.source, destination)
    assert [each.ref.id for each in result.failed] == [first]
    assert isinstance(result.failed[0].error, DigestMismatch)
    assert [ref.id for ref in result.copied] == [second]
    family.assert_whole(destination, 1)


@pytest.mark.parametrize("is_withheld", [False, True])
def test_what_the_source_forgets_during_a_run_is_no_damage(is_withheld):
    """Policy and sync at the same hour: a snapshot that was listed is gone. One that the store lost is damage as before."""
    family = Family(make_repository(MemoryStore("first"), key=KEY))
    ids = [family.back_up(make_mixed_image(300_000, seed)) for seed in range(3)]
    destination = make_like(family.source)
    progress = Warnings()

    def lose_first(_):
        if is_withheld:
            (name,) = (
                each for each in family.source.objects.store.objects if each.endswith(ids[0]) and "snapshots/" in each
            )
            del family.source.objects.store.objects[name]
        else:
            forget_ids(family.source, ids[:1])

    result = sync(SyncRequest(family.source, destination, progress=progress, clock=FixedClock()), lose_first)
    assert [each.ref.id for each in result.failed] == ids[:1] * is_withheld
    assert [ref.id for ref in result.copied] == ids[1:]
    assert (
        any("is not copied: it was forgotten in first meanwhile" in each for each in progress.messages) != is_withheld
    )
    family.assert_whole(destination, 2)


def test_a_source_that_goes_away_ends_the_run_and_names_no_damage():
    family = make_family(3)
    counted = watch_calls(family.source)
    run_sync(counted, make_like(family.source))
    first_pack = next(place for place, call in enumerate(counted.objects.store.calls) if call.startswith("get packs/"))
    gone = FaultyStore(family.source.objects.store, StoreUnavailable("x", "gone"), fail_at=first_pack, is_lasting=True)
    destination = make_like(family.source)
    with pytest.raises(StoreUnavailable):
        run_sync(Repository(gone, family.source.config), destination)
    run_sync(family.source, destination)
    family.assert_whole(destination, 3)
