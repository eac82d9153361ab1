# SPDX-License-Identifier: Apache-2.0
"""Sync between two repositories of a family: what is copied, what is not, and what is sent for it."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import timedelta

import pytest

from deltaimg.crypto.key_slots import KeyFile
from deltaimg.engine.parity.add import add_parity
from deltaimg.engine.parity.protection import survey_parity
from deltaimg.engine.prune.run import prune
from deltaimg.engine.retention.annotate import set_pin
from deltaimg.engine.sync.request import SyncEstimate, SyncRequest
from deltaimg.engine.sync.run import plan_sync, sync
from deltaimg.errors import (
    DigestMismatch,
    FamilyConflict,
    RepositoryDamaged,
    RepositoryLocked,
    SnapshotNotFound,
    StoreUnavailable,
    UsageError,
)
from deltaimg.format.config import Config
from deltaimg.format.deletion import Deletion
from deltaimg.options.keep import Policy, Span
from deltaimg.options.prune import PruneOptions
from deltaimg.options.sync import SyncOptions
from deltaimg.repo.deletions import put_deletion, remove_deletion
from deltaimg.repo.index import load_index
from deltaimg.repo.lock import ImageLock
from deltaimg.repo.repository import Repository
from deltaimg.repo.snapshots import load_snapshot
from deltaimg.store.interface import Confirm, Parts, always
from deltaimg.store.memory import MemoryStore
from tests.support.clock import START, FixedClock
from tests.support.faults import FaultyStore
from tests.support.history import forget_ids
from tests.support.images import PAGE, SyntheticImage, edit_at_random, make_incompressible_image, make_mixed_image
from tests.support.repositories import (
    KEY,
    Warnings,
    assert_restores,
    back_up_image,
    count_stored_bytes,
    make_repository,
)
from tests.support.sync import Family, assert_sound, make_family, make_like, run_sync
from tests.support.wrapping import WrappedStore


def names(repository: Repository, folder: str) -> set[str]:
    return {found.name for found in repository.objects.list(folder)}


def count(repository: Repository) -> Repository:
    """Return the repository over a store that counts calls, which are in `objects.store.calls`."""
    return Repository(FaultyStore(repository.objects.store, StoreUnavailable("x", "gone")), repository.config)


# -- what is copied ----------------------------------------------------------------------------------------------------


def test_all_snapshots_are_copied_in_packs_that_keep_their_names():
    family = make_family(4, ("vm1", "vm2"))
    destination = make_like(family.source)
    result = run_sync(family.source, destination)
    assert len(result.copied) == 8
    assert not result.failed
    family.assert_whole(destination, 8)
    for folder in ("packs/", "maps/", "snapshots/"):
        assert names(destination, folder) == names(family.source, folder)


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
        before, packs = count_stored_bytes(destination), names(destination, "packs/")
        result = run_sync(family.source, destination)
        assert len(result.copied) == 1
        assert result.stored_bytes == count_stored_bytes(destination) - before
        assert names(destination, "packs/") - packs == names(family.source, "packs/") - packs
    family.assert_whole(destination, 5)


def test_records_that_the_destination_made_itself_are_not_sent():
    """It has backed up the same image, under another name and in packs of its own."""
    family = make_family(1)
    destination = make_like(family.source)
    back_up_image(destination, make_mixed_image(600_000), "own", clock=FixedClock())
    image = make_mixed_image(600_000)
    packs = names(destination, "packs/")
    result = run_sync(family.source, destination)
    assert len(result.copied) == 1
    assert names(destination, "packs/") == packs
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
    assert len(names(family.source, "packs/")) == 3


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


# -- selection ---------------------------------------------------------------------------------------------------------


def test_snapshots_are_chosen_by_image_tag_time_and_policy():
    family = make_family(4, ("vm1", "vm2"))
    image = make_mixed_image(600_000)
    family.clock.advance(days=1)
    family.back_up(image, "vm1", tags=("release", "weekly"))
    family.back_up(image, "vm1", tags=("weekly",))

    def choose(policy: Policy | None = None, **options: object) -> list[str]:
        request = SyncRequest(
            family.source,
            make_like(family.source),
            SyncOptions(**options),
            policy or Policy(),
            clock=FixedClock(START + timedelta(days=20)),
        )
        return [ref.image for ref in plan_sync(request).snapshots]

    assert choose() == ["vm1"] * 6 + ["vm2"] * 4
    assert choose(images=("vm2",)) == ["vm2"] * 4
    assert choose(with_tags=("weekly",)) == ["vm1"] * 2
    assert choose(with_tags=("weekly", "release")) == ["vm1"]
    assert choose(since=START + timedelta(days=7, hours=1)) == ["vm1"] * 2 + ["vm2"]
    assert choose(since=Span(days=10)) == ["vm1"] * 2
    assert choose(Policy(last=2)) == ["vm1"] * 2 + ["vm2"] * 2
    assert choose(Policy(last=1), images=("vm1",), with_tags=("release",)) == []


def test_an_image_that_the_source_does_not_have_is_an_error():
    family = make_family(1)
    with pytest.raises(SnapshotNotFound) as caught:
        run_sync(family.source, make_like(family.source), images=("vm7",))
    assert "vm1" in str(caught.value.hint)


@pytest.mark.parametrize("newest_first", [False, True])
def test_the_order_is_oldest_first_or_the_newest_of_each_image_before_all_others(newest_first):
    family = make_family(3, ("vm1", "vm2"))
    destination = count(make_like(family.source))
    run_sync(family.source, destination, newest_first=newest_first)
    done = [call.split("/", 1)[1] for call in destination.objects.store.calls if call.startswith("put snapshots/")]
    listed = [ref.object_name.split("/", 1)[1] for ref in family.source.list_snapshots()]
    expected = [listed[place] for place in (5, 2, 4, 3, 1, 0)] if newest_first else listed
    assert done == expected
    family.assert_whole(destination, 6)


# -- what is sent ------------------------------------------------------------------------------------------------------


def test_the_estimate_is_what_is_sent():
    family = make_family(5)
    destination = make_like(family.source)
    estimates: list[SyncEstimate] = []
    request = SyncRequest(family.source, destination, clock=FixedClock())
    forecast = plan_sync(request)
    assert not any(names(destination, folder) for folder in ("packs/", "snapshots/", "locks/"))
    result = sync(request, estimates.append)
    assert estimates == [forecast]
    assert forecast.snapshots == result.copied
    assert result.stored_bytes * 0.9 <= forecast.amount.sent_bytes <= result.stored_bytes * 1.1
    assert sync(request, estimates.append).copied == ()
    assert estimates[1].amount.sent_bytes == 0
    assert estimates[1].there_count == 5


def test_a_snapshot_costs_the_destination_few_requests():
    family, image = make_family(2), make_mixed_image(600_000)
    destination = count(make_like(family.source))
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
        counted = count(destination)
        result = run_sync(family.source, counted, since=since)
        assert not [call for call in counted.objects.store.calls if call.startswith("put packs/")]
        assert result.copied
        family.assert_whole(destination)


# -- locks, prunes, errors ---------------------------------------------------------------------------------------------


def test_what_is_pending_deletion_in_the_destination_is_sent_again_under_another_name():
    family = make_family(2)
    destination = make_like(family.source)
    run_sync(family.source, destination)
    forget_ids(destination, [ref.id for ref in destination.list_snapshots()], is_forced=True)
    packs = tuple(name.rpartition("/")[2] for name in names(destination, "packs/"))
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
    assert not names(destination, "locks/")
    counted = count(family.source)
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


def test_encrypted_members_are_synced_as_what_is_stored():
    source = make_repository(MemoryStore("source"), KEY)
    image = SyntheticImage(3 << 20)
    image.write_random(0, 2 << 20)
    manifest = back_up_image(source, image)
    destination = make_repository(MemoryStore("destination"), KeyFile(bytes(32)), like=source)
    assert [each.id for each in run_sync(source, destination).copied] == [manifest.id]
    assert_restores(destination, manifest, image.content)
    for folder in ("packs/", "maps/", "snapshots/"):
        names = [found.name for found in source.objects.list(folder)]
        assert names == [found.name for found in destination.objects.list(folder)]


def test_a_copy_of_the_same_repository_can_be_brought_up_to_date():
    family, image = make_family(2), make_mixed_image(600_000)
    store = MemoryStore("copy")
    store.objects = dict(family.source.objects.store.objects)
    family.back_up(image)
    copy = Repository.open(store)
    assert len(run_sync(family.source, copy).copied) == 1
    family.assert_whole(copy, 3)


# -- a damaged source --------------------------------------------------------------------------------------------------


def flip(repository: Repository, name: str, place: int = -300) -> None:
    data = bytearray(repository.objects.store.objects[name])
    data[place] ^= 0x55
    repository.objects.store.objects[name] = bytes(data)


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
        flip(family.source, name, 90 if folder == "packs/" else -30)
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
    (pack,) = names(family.source, "packs/")
    flip(family.source, pack, 300)
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
    counted = count(family.source)
    run_sync(counted, make_like(family.source))
    first_pack = next(place for place, call in enumerate(counted.objects.store.calls) if call.startswith("get packs/"))
    gone = FaultyStore(family.source.objects.store, StoreUnavailable("x", "gone"), fail_at=first_pack, is_lasting=True)
    destination = make_like(family.source)
    with pytest.raises(StoreUnavailable):
        run_sync(Repository(gone, family.source.config), destination)
    run_sync(family.source, destination)
    family.assert_whole(destination, 3)


def test_progress_ends_at_what_was_announced():
    family = make_family(3)
    progress = Warnings()
    request = SyncRequest(family.source, make_like(family.source), progress=progress, clock=FixedClock())
    sync(request)
    assert progress.messages == []
    assert_sound(request.destination)


# -- parity, and what is compared at the end ---------------------------------------------------------------------------


def test_parity_comes_with_the_packs_that_it_protects():
    pytest.importorskip("pyeclib")
    family = make_family(3, ("vm1", "vm2"))
    add_parity(family.source, 10, clock=FixedClock())
    destination = make_like(family.source)
    run_sync(family.source, destination, ignores_parity=True)
    assert not names(destination, "parity/")
    destination = make_like(family.source)
    assert run_sync(family.source, destination).stored_bytes == count_stored_bytes(destination) - len(
        destination.objects.get_bytes("config")
    )
    assert names(destination, "parity/") == names(family.source, "parity/")
    survey = survey_parity(destination)
    assert survey.unprotected_packs == 0
    assert not survey.lost
    family.assert_whole(destination, 6)
    partial = make_like(family.source)
    run_sync(family.source, partial, images=("vm1",))
    assert not names(partial, "parity/")
    run_sync(family.source, partial, images=("vm2",))
    assert names(partial, "parity/") == names(family.source, "parity/")


class LyingStore(WrappedStore):
    """Loses what is put into one folder, or changes a byte of it, without a word."""

    def __init__(self, inner: MemoryStore, folder: str, *, is_lost: bool) -> None:
        super().__init__(inner)
        self._folder, self._is_lost = folder, is_lost

    def around(self, call: str) -> nullcontext[None]:
        return nullcontext()

    def put(self, name: str, parts: Parts, confirm: Confirm = always) -> int:
        size_bytes = super().put(name, parts, confirm)
        if name.startswith(self._folder):
            data = bytearray(self.inner.objects.pop(name))
            data[len(data) // 2] ^= 1
            if not self._is_lost:
                self.inner.objects[name] = bytes(data)
        return size_bytes


@pytest.mark.parametrize(
    ("folder", "is_lost", "verify"),
    [("packs/", False, "all"), ("packs/", True, "sample"), ("index/", False, "all"), ("snapshots/", True, "sample")],
)
def test_a_store_that_loses_or_changes_what_is_sent_is_found_out(folder, is_lost, verify):
    family = make_family(2)
    destination = make_like(family.source)
    liar = Repository(LyingStore(destination.objects.store, folder, is_lost=is_lost), destination.config)
    with pytest.raises(RepositoryDamaged, match=f"second: {folder}.* did not arrive"):
        run_sync(family.source, liar, verify=verify)


def test_what_was_sent_is_read_back_where_that_is_asked_for():
    family = make_family(3)
    for verify in ("none", "sample", "all"):
        result = run_sync(family.source, make_like(family.source), verify=verify)
        assert (result.compared.read_bytes > result.stored_bytes * 0.9) == (verify != "none")
        assert bool(result.compared.objects) == (verify != "none")


# -- encrypted members -------------------------------------------------------------------------------------------------


def test_what_is_sealed_is_copied_as_it_is_to_a_member_with_the_same_key():
    family, image = Family(make_repository(MemoryStore("first"), key=KEY)), make_incompressible_image(1 << 20, seed=3)
    for day in range(3):
        for page in range(0, 1 << 20, PAGE):
            image.write(page + 100 * day, b"changed")
        family.back_up(image)
    destination = make_repository(MemoryStore("second"), key=KEY, like=family.source)
    run_sync(family.source, destination, since=START + timedelta(days=3))
    family.assert_whole(destination, 1)
    run_sync(family.source, destination)
    family.assert_whole(destination, 3)
    another = make_repository(MemoryStore("third"), key=KEY, like=family.source)
    run_sync(family.source, another)
    assert names(another, "packs/") == names(family.source, "packs/")
    family.assert_whole(another, 3)
