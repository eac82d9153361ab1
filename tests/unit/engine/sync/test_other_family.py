# SPDX-License-Identifier: Apache-2.0
"""Sync between families: snapshots are decoded, verified and stored again under the keys of the destination."""

from __future__ import annotations

from datetime import timedelta

import pytest

from deltaimg.engine.retention.annotate import set_pin
from deltaimg.engine.sync.request import SyncRequest, SyncResult
from deltaimg.engine.sync.run import plan_sync, sync
from deltaimg.errors import RepositoryLocked, StoreUnavailable, UsageError
from deltaimg.options.sync import SyncOptions
from deltaimg.repo.lock import ImageLock
from deltaimg.repo.repository import Repository
from deltaimg.repo.snapshots import load_snapshot
from deltaimg.store.memory import MemoryStore
from tests.support.clock import START, FixedClock
from tests.support.faults import FaultyStore
from tests.support.images import edit_at_random, make_incompressible_image, make_mixed_image
from tests.support.repositories import Warnings, assert_restores, make_repository
from tests.support.sync import Family, assert_sound, make_family

LATER = FixedClock(START + timedelta(days=99))


def make_stranger() -> Repository:
    return make_repository(MemoryStore("stranger"))


def run(source: Repository, destination: Repository, **options: object) -> tuple[SyncResult, list[str]]:
    progress = Warnings()
    result = sync(SyncRequest(source, destination, SyncOptions(**options), progress=progress, clock=LATER))
    return result, progress.messages


def assert_same(family: Family, destination: Repository) -> None:
    """The destination has the images of the source at its times, under other ids."""
    assert_sound(destination)
    by_time = {(ref.image, ref.time): ref for ref in family.source.list_snapshots()}
    for ref in destination.list_snapshots():
        original = by_time[ref.image, ref.time]
        assert ref.id != original.id
        assert_restores(destination, destination.load_manifest(ref), family.contents[original.id])


def test_snapshots_are_stored_again_and_found_the_next_time():
    family, image = make_family(3, ("vm1", "vm2")), make_mixed_image(600_000)
    destination = make_stranger()
    forecast = plan_sync(SyncRequest(family.source, destination, clock=LATER))
    assert forecast.is_other_family
    assert len(forecast.snapshots) == 6
    assert forecast.amount.sent_bytes > 100_000
    result, warnings = run(family.source, destination)
    assert (len(result.copied), warnings) == (6, [])
    assert_same(family, destination)
    assert run(family.source, destination)[0].copied == ()
    edit_at_random(image)
    family.back_up(image, tags=("weekly",), comment="the last")
    newest = family.source.list_snapshots("vm1")[-1]
    set_pin(family.source, newest, "for a reason")
    result, _ = run(family.source, destination)
    assert result.copied == (newest,)
    assert result.there_count == 6
    found = load_snapshot(destination, destination.list_snapshots("vm1")[-1])
    assert (found.tags, found.comment, found.pin_reason) == (("weekly",), "the last", "for a reason")
    assert found.manifest.taken_at == load_snapshot(family.source, newest).manifest.taken_at
    assert_same(family, destination)


def test_a_snapshot_older_than_what_is_there_is_left_out_and_named():
    family = make_family(3)
    destination = make_stranger()
    run(family.source, destination, since=START + timedelta(days=3))
    result, (warning,) = run(family.source, destination)
    assert result.copied == ()
    assert "2 snapshots are left out" in warning
    assert_same(family, destination)


def test_what_the_source_cannot_give_is_named_and_the_rest_is_stored():
    family = make_family(2)
    image = make_incompressible_image(400_000, seed=9)
    packs = {name for name in family.source.objects.store.objects if name.startswith("packs/")}
    damaged = family.back_up(image)
    (new,) = {name for name in family.source.objects.store.objects if name.startswith("packs/")} - packs
    data = bytearray(family.source.objects.store.objects[new])
    data[200] ^= 1
    family.source.objects.store.objects[new] = bytes(data)
    image.zero(0, 400_000)
    family.back_up(image)
    destination = make_stranger()
    result, _ = run(family.source, destination)
    assert [each.ref.id for each in result.failed] == [damaged]
    assert str(result.failed[0].error).startswith("first: ")
    assert len(result.copied) == 3
    assert_same(family, destination)


def test_an_error_of_the_destination_ends_the_run():
    family = make_family(2)
    destination = make_stranger()
    with ImageLock(destination, "vm1", "backup", START), pytest.raises(RepositoryLocked):
        run(family.source, destination)
    full = FaultyStore(destination.objects.store, StoreUnavailable("packs/x", "gone"), fail_at=12, is_lasting=True)
    with pytest.raises(StoreUnavailable):
        run(family.source, Repository(full, destination.config))
    for name in [found.name for found in destination.objects.list("locks/")]:
        destination.objects.delete(name)
    run(family.source, destination)
    assert_same(family, destination)
    assert len(destination.list_snapshots()) == 2


@pytest.mark.parametrize("option", ["delete", "newest_first"])
def test_options_that_need_a_family_are_refused(option: str):
    with pytest.raises(UsageError, match="different families"):
        run(make_family(1).source, make_stranger(), **{option: True})


@pytest.mark.parametrize("how", ["sample", "all"])
def test_what_was_stored_is_read_back_where_that_is_asked_for(how: str):
    family = make_family(2)
    result, _ = run(family.source, make_stranger(), verify=how)
    assert result.compared.read_bytes > 0
