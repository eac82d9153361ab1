# SPDX-License-Identifier: Apache-2.0
"""Sync between two repositories of a family: what is copied, what is not, and what is sent for it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from deltaimg.engine.prune.run import prune
from deltaimg.engine.retention.annotate import set_pin
from deltaimg.engine.sync.request import SyncEstimate, SyncRequest
from deltaimg.engine.sync.run import plan_sync, sync
from deltaimg.errors import FamilyConflict, RepositoryLocked, UsageError
from deltaimg.format.config import Config
from deltaimg.format.deletion import Deletion
from deltaimg.options.prune import PruneOptions
from deltaimg.repo.deletions import put_deletion, remove_deletion
from deltaimg.repo.index import load_index
from deltaimg.repo.lock import ImageLock
from deltaimg.repo.repository import Repository
from deltaimg.repo.snapshots import load_snapshot
from deltaimg.store.interface import always
from deltaimg.store.memory import MemoryStore
from tests.support.clock import START, FixedClock
from tests.support.history import forget_ids
from tests.support.images import PAGE, edit_at_random, make_incompressible_image, make_mixed_image
from tests.support.repositories import Warnings, back_up_image, count_stored_bytes, make_repository
from tests.support.sync import Family, assert_sound, make_family, make_like, names_of, run_sync, watch_calls

# -- what is copied ----------------------------------------------------------------------------------------------------


def test_all_snapshots_are_copied_in_packs_that_keep_their_names():
    family = make_family(4, ("vm1", "vm2"))
    destination = make_like(family.source)
    result = run_sync(family.source, destination)
    assert len(result.copied) == 8
    assert not result.failed
    family.assert_whole(destination, 8)
    for folder in ("packs/", "maps/", "snapshots/"):
        assert names_of(destination, folder) == names_of(family.source, folder)


def test_what_is_there_is_not_sent_again():
    family = make_family(3)
    destination = make_like(family.source)
    run_sync(family.source, destination)
    before = dict(destination.objects.store.objects)
    result = run_sync(family.source, destination)
    assert (result.copied, result.there_count, result.stored_bytes) == ((), 3, 0)
    assert destination.objects.store.objects == before


def test_each_sync_brings_what_is_new_since_the_last():
    family, image = make_family(2), make_mixed_image(600_000)
    destination = make_like(family.source)
    run_sync(family.source, destination)
    for _ in range(3):
        edit_at_random(image)
        family.back_up(image)
        before, packs = count_stored_bytes(destination), names_of(destination, "packs/")
        result = run_sync(family.source, destination)
        assert len(result.copied) == 1
        assert result.stored_bytes == count_stored_bytes(destination) - before
        assert names_of(destination, "packs/") - packs == names_of(family.source, "packs/") - packs
    family.assert_whole(destination, 5)


def test_records_that_the_destination_made_itself_are_not_sent():
    """It has backed up the same image, under another name and in packs of its own."""
    family = make_family(1)
    destination = make_like(family.source)
    back_up_image(destination, make_mixed_image(600_000), "own", clock=FixedClock())
    image = make_mixed_image(600_000)
    packs = names_of(destination, "packs/")
    result = run_sync(family.source, destination)
    assert len(result.copied) == 1
    assert names_of(destination, "packs/") == packs
    family.contents |= {ref.id: bytes(image.content) for ref in destination.list_snapshots("own")}
    family.assert_whole(destination, 2)


def test_a_few_records_of_a_pack_are_gathered_and_their_delta_sources_with_them():
    family = make_family(6)
    ids = [ref.id for ref in family.source.list_snapshots()]
    destination = make_like(family.source)
    result = run_sync(family.source, destination, since=START + timedelta(days=6))
    assert [ref.id for ref in result.copied] == ids[5:]
    family.assert_whole(destination, 1)
    result = run_sync(family.source, destination)
    assert [ref.id for ref in result.copied] == ids[:5]
    family.assert_whole(destination, 6)


def test_records_that_only_deltas_need_come_with_them():
    """Every page changes a little, so that the newest snapshot refers to nothing of the first but as delta sources."""
    family, image = Family(make_repository(MemoryStore("first"))), make_incompressible_image(1 << 20, seed=3)
    for day in range(3):
        for page in range(0, 1 << 20, PAGE):
            image.write(page + 100 * day, b"changed")
        family.back_up(image)
    index = load_index(family.source)
    assert int(index.links.depths.max()) == 2
    for chosen in (1, 2, 3):
        destination = make_like(family.source)
        run_sync(family.source, destination, since=START + timedelta(days=4 - chosen))
        family.assert_whole(destination, chosen)
    assert len(names_of(family.source, "packs/")) == 3


def test_a_source_whose_records_were_cut_and_encoded_again_is_copied():
    family = Family(make_repository(MemoryStore("first")))
    image = make_incompressible_image(2 << 20, seed=2)
    ids = [family.back_up(image)]
    destination = make_like(family.source)
    for size in (1 << 20, 3 << 19):
        image.resize(size)
        image.write(PAGE * 7, b"changed")
        ids.append(family.back_up(image))
    forget_ids(family.source, ids[:1])
    prune(family.source, PruneOptions(max_unused_percent=0, trim="full"), clock=FixedClock())
    assert len(load_index(family.source).cuts)
    run_sync(family.source, destination)
    family.assert_whole(destination, 2)


def test_a_record_that_the_destination_has_cut_is_sent_whole():
    family = Family(make_repository(MemoryStore("first")))
    image = make_incompressible_image(1 << 20, seed=2)
    full = family.back_up(image)
    image.resize(3 << 18)
    family.back_up(image)
    destination = make_like(family.source)
    run_sync(family.source, destination)
    forget_ids(destination, [full])
    prune(destination, PruneOptions(max_unused_percent=0, trim="full"), clock=FixedClock())
    assert len(load_index(destination).cuts)
    run_sync(family.source, destination)
    family.assert_whole(destination, 2)


def test_snapshots_that_the_destination_forgot_come_back_whatever_it_pruned():
    family = make_family(4)
    destination = make_like(family.source)
    run_sync(family.source, destination)
    forget_ids(destination, [ref.id for ref in destination.list_snapshots()[:3]])
    prune(destination, PruneOptions(max_unused_percent=0), clock=FixedClock())
    assert len(run_sync(family.source, destination).copied) == 3
    family.assert_whole(destination, 4)


def test_annotations_come_with_their_snapshots_and_those_of_the_destination_stay():
    family, image = make_family(2), make_mixed_image(600_000)
    first, second = family.source.list_snapshots()
    set_pin(family.source, first, "the first")
    destination = make_like(family.source)
    run_sync(family.source, destination)
    assert load_snapshot(destination, first).pin_reason == "the first"
    set_pin(destination, second, "kept there")
    set_pin(family.source, second, "kept here")
    family.back_up(image)
    run_sync(family.source, destination)
    assert load_snapshot(destination, second).pin_reason == "kept there"


def test_a_copy_of_the_same_repository_can_be_brought_up_to_date():
    family, image = make_family(2), make_mixed_image(600_000)
    store = MemoryStore("copy")
    store.objects = dict(family.source.objects.store.objects)
    family.back_up(image)
    copy = Repository.open(store)
    assert len(run_sync(family.source, copy).copied) == 1
    family.assert_whole(copy, 3)


# -- what is sent ------------------------------------------------------------------------------------------------------


def test_the_estimate_is_what_is_sent():
    family = make_family(5)
    destination = make_like(family.source)
    estimates: list[SyncEstimate] = []
    request = SyncRequest(family.source, destination, clock=FixedClock())
    forecast = plan_sync(request)
    assert not any(names_of(destination, folder) for folder in ("packs/", "snapshots/", "locks/"))
    result = sync(request, estimates.append)
    assert estimates == [forecast]
    assert forecast.snapshots == result.copied
    assert result.stored_bytes * 0.9 <= forecast.amount.sent_bytes <= result.stored_bytes * 1.1
    assert sync(request, estimates.append).copied == ()
    assert estimates[1].amount.sent_bytes == 0
    assert estimates[1].there_count == 5


def test_a_snapshot_costs_the_destination_few_requests():
    family, image = make_family(2), make_mixed_image(600_000)
    destination = watch_calls(make_like(family.source))
    calls = destination.objects.store.calls
    run_sync(family.source, destination)
    for _ in range(5):
        edit_at_random(image)
        family.back_up(image)
        calls.clear()
        run_sync(family.source, destination)
        known = sum(call.startswith("get index/") for call in calls)
        others = [call for call in calls if not call.startswith(("put packs/", "get index/"))]
        assert known <= 6
        assert len(others) + 1 <= 12, "\n".join(others)  # opening it reads the config
    for _ in range(20):
        edit_at_random(image)
        family.back_up(image)
    calls.clear()
    run_sync(family.source, destination)
    assert len([call for call in calls if not call.startswith("put packs/")]) <= 12 * 20


def test_packs_that_arrived_and_were_not_indexed_are_not_sent_again():
    family = make_family(3)
    for since in (None, START + timedelta(days=3)):  # whole packs, and gathered ones
        store = MemoryStore("second")
        destination = make_like(family.source, store)
        run_sync(family.source, destination, since=since)
        for name in [name for name in store.objects if name.startswith(("index/", "signatures/", "snapshots/"))]:
            del store.objects[name]
        counted = watch_calls(destination)
        result = run_sync(family.source, counted, since=since)
        assert not [call for call in counted.objects.store.calls if call.startswith("put packs/")]
        assert result.copied
        family.assert_whole(destination)


def test_progress_ends_at_what_was_announced():
    family = make_family(3)
    progress = Warnings()
    request = SyncRequest(family.source, make_like(family.source), progress=progress, clock=FixedClock())
    sync(request)
    assert progress.messages == []
    assert_sound(request.destination)


# -- beside others, and not at all ---------------------------------------------------------------------------------------


def test_what_is_pending_deletion_in_the_destination_is_sent_again_under_another_name():
    family = make_family(2)
    destination = make_like(family.source)
    run_sync(family.source, destination)
    forget_ids(destination, [ref.id for ref in destination.list_snapshots()], is_forced=True)
    packs = tuple(name.rpartition("/")[2] for name in names_of(destination, "packs/"))
    pending = Deletion(id="00000000000000cc", created="now", packs=packs)
    put_deletion(destination, pending, always)
    run_sync(family.source, destination)
    remove_deletion(destination, pending)
    for name in packs:
        destination.objects.delete(f"packs/{name[:2]}/{name}")
    family.assert_whole(destination, 2)


def test_a_snapshot_whose_map_is_pending_deletion_waits_for_the_prune():
    family = make_family(2)
    destination = make_like(family.source)
    run_sync(family.source, destination)
    newest = destination.list_snapshots()[-1]
    manifest = destination.load_manifest(newest)
    forget_ids(destination, [newest.id])
    pending = Deletion(id="00000000000000cc", created="now", maps=manifest.maps[-1:])
    put_deletion(destination, pending, always)
    result = run_sync(family.source, destination)
    assert result.copied == ()
    assert isinstance(result.failed[0].error, RepositoryLocked)
    remove_deletion(destination, pending)
    assert run_sync(family.source, destination).copied == (newest,)
    family.assert_whole(destination, 2)


def test_a_locked_image_is_an_error_and_a_pruning_source_waits_for_the_sync():
    family = make_family(1)
    destination = make_like(family.source)
    with ImageLock(destination, "vm1", "backup", START), pytest.raises(RepositoryLocked, match="vm1"):
        run_sync(family.source, destination)
    assert not names_of(destination, "locks/")
    counted = watch_calls(family.source)
    run_sync(counted, destination)
    assert counted.objects.store.calls[0].startswith("put locks/.reader-")


def test_repositories_that_cannot_be_synced_are_refused():
    family = make_family(1)
    with pytest.raises(UsageError, match="one repository"):
        run_sync(family.source, Repository.open(family.source.objects.store))
    stranger = make_repository(MemoryStore("stranger"))
    config = Config(repository_id=family.source.config.repository_id, created="", digest_key=stranger.config.digest_key)
    fake = Repository(stranger.objects.store, config)
    with pytest.raises(FamilyConflict, match="first and stranger"):
        run_sync(family.source, fake)
