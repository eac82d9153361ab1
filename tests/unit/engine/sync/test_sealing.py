# SPDX-License-Identifier: Apache-2.0
"""Sync between members of a family of which some are encrypted: records are sealed, opened or copied, and never decoded."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest

from deltaimg.crypto.key_slots import KeyFile
from deltaimg.engine.repair.run import repair
from deltaimg.engine.retention.annotate import set_pin
from deltaimg.engine.retention.forget import forget
from deltaimg.engine.sync.request import SyncRequest
from deltaimg.engine.sync.run import plan_sync, sync
from deltaimg.errors import StoreUnavailable
from deltaimg.format.pack import PACKS, scan_records
from deltaimg.format.record import RECORD_HEADER_BYTES
from deltaimg.options.sync import SyncOptions
from deltaimg.repo.repository import Repository
from deltaimg.repo.retention import plan_named
from deltaimg.repo.snapshots import load_snapshot
from deltaimg.store.memory import MemoryStore
from tests.support.clock import START, FixedClock
from tests.support.faults import FaultyStore
from tests.support.images import PAGE, edit_at_random, make_incompressible_image, make_mixed_image
from tests.support.repositories import KEY, assert_restores, make_repository, reopen
from tests.support.sync import Family, make_family, names_of, run_sync
from tests.support.wrapping import WatchedStore

_numbers = itertools.count()


def make_members(family: Family) -> dict[str, Repository]:
    """Return members of a family that are encrypted, so with padding, encrypted with another secret, and not encrypted."""
    encrypted, other, bare = (
        make_repository(MemoryStore(f"{name} {next(_numbers)}"), key, like=family.source)
        for name, key in (("encrypted", KEY), ("other", KEY), ("bare", None))
    )
    padded = make_repository(MemoryStore(f"padded {next(_numbers)}"), KEY, like=encrypted, is_padded=True)
    assert padded.secret == encrypted.secret
    return {"encrypted": encrypted, "padded": padded, "other": other, "bare": bare}


def payloads_of(repository: Repository) -> dict[bytes, int]:
    """Return how long the payload of each record is without a seal, and without padding, as its pack has it."""
    found: dict[bytes, int] = {}
    for each in repository.objects.list(PACKS):
        data = repository.objects.get_verified(each.name)
        for offset, header in scan_records(each.name, data):
            assert header.is_padded == repository.config.is_padded
            payload = memoryview(data)[offset + RECORD_HEADER_BYTES :][: header.payload_bytes]
            found[header.id] = len(repository.objects.open_record(each.name, offset, header, payload))
    return found


def test_records_go_from_member_to_member_as_they_are():
    family = make_family(3, ("vm1", "vm2"))
    members = make_members(family)
    set_pin(family.source, family.source.list_snapshots()[0], "for the auditors", clock=FixedClock())
    source = family.source
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deltaimg.repo.record_reader.find_decoder", None)  # what decodes a record fails
        for destination in members.values():
            result = run_sync(source, destination, verify="all")
            assert len(result.copied) == 6
            assert not run_sync(source, destination).copied
            assert payloads_of(destination) == payloads_of(family.source)
            source = destination
    for destination in members.values():
        family.assert_whole(destination, 6)
        assert load_snapshot(destination, destination.list_snapshots()[0]).pin_reason == "for the auditors"
        assert [ref.id for ref in destination.list_snapshots()] == [ref.id for ref in family.source.list_snapshots()]


@pytest.mark.parametrize(("name", "is_newest_first"), [("encrypted", False), ("encrypted", True), ("padded", False)])
def test_what_is_there_is_not_sent_again(name: str, is_newest_first: bool):
    family, image = make_family(3), make_mixed_image(600_000)
    destination = make_members(family)[name]
    run_sync(family.source, destination, newest_first=is_newest_first)
    for _ in range(2):
        edit_at_random(image)
        family.back_up(image)
    maps, packs = len(names_of(destination, "maps/")), len(names_of(destination, "packs/"))
    planned = plan_sync(SyncRequest(family.source, destination, clock=FixedClock()))
    assert len(planned.snapshots) == 2
    run_sync(family.source, destination, newest_first=is_newest_first)
    added = len(names_of(family.source, "maps/")) - maps
    assert len(names_of(destination, "maps/")) - maps == added, (
        "layers that it has are found by the snapshot that both have"
    )
    assert len(names_of(destination, "packs/")) - packs <= 2
    assert payloads_of(destination) == payloads_of(family.source)
    family.assert_whole(destination, 5)


def test_what_the_source_has_forgotten_is_forgotten_there():
    family = make_family(3)
    destination = make_members(family)["encrypted"]
    run_sync(family.source, destination)
    first = family.source.list_snapshots()[0]
    forget(family.source, "vm1", lambda found: plan_named(found, frozenset([first.id])), clock=FixedClock())
    request = SyncRequest(family.source, destination, SyncOptions(delete=True), clock=FixedClock())
    assert sync(request).forgotten == (first,)


@pytest.mark.parametrize("share", [0.35, 0.5, 0.65, 0.75])
def test_a_sync_that_is_cut_stores_what_it_had_stored_under_the_same_names(share: float):
    """The same records, sealed again, make the same pack: it is found, and not sent again."""
    family = make_family(3)
    whole = make_members(family)["encrypted"]
    counted = WatchedStore(whole.objects.store)
    run_sync(family.source, reopen(whole, counted))
    whole = make_members(family)["encrypted"]
    error, fail_at = StoreUnavailable("x", "gone"), int(share * len(counted.calls))
    faulty = FaultyStore(whole.objects.store, error, fail_at=fail_at, is_lasting=True)
    with pytest.raises(StoreUnavailable):
        sync(SyncRequest(family.source, reopen(whole, faulty), clock=FixedClock()))
    packs = {each.name for each in whole.objects.list("packs/")}
    run_sync(family.source, whole)
    assert packs <= {each.name for each in whole.objects.list("packs/")}
    assert payloads_of(whole) == payloads_of(family.source)
    total = sum(payloads_of(whole).values())
    assert sum(each.size_bytes for each in whole.objects.list("packs/")) < 1.2 * total, "nothing is there twice"
    family.assert_whole(whole, 3)


@pytest.mark.parametrize("of", ["bare", "other", "padded"])
def test_repair_takes_no_object_of_a_member_that_seals_otherwise_and_a_sync_does(of: str):
    family = make_family(3)
    members = make_members(family)
    encrypted, member = members["encrypted"], members[of]
    for each in (encrypted, member):
        run_sync(family.source, each)
    objects: dict[str, bytes] = encrypted.objects.store.objects  # type: ignore[attr-defined]
    others = set(member.objects.store.objects.values())  # type: ignore[attr-defined]
    whole = dict(objects)
    for folder in ("maps/", "snapshots/"):
        objects.clear()
        objects |= whole
        name = min(each for each in objects if each.startswith(folder))
        objects[name] = objects[name][:90] + bytes([objects[name][90] ^ 1]) + objects[name][91:]
        report = repair(encrypted, copy=member, clock=FixedClock())
        assert (len(report.damage) > 0, report.copied) == (True, [])
        assert not others & set(objects.values()), "an object of another seal was copied"
    assert len(sync(SyncRequest(member, encrypted, clock=FixedClock())).copied) == 1
    for ref in encrypted.list_snapshots():
        assert_restores(encrypted, encrypted.load_manifest(ref), family.contents[ref.id])
    assert len(encrypted.list_snapshots()) == 3


def test_a_padded_member_and_one_that_is_not_share_a_key_and_never_a_nonce():
    family = make_family(2)
    members = make_members(family)
    seeds: list[set[bytes]] = []
    for name in ("encrypted", "padded"):
        run_sync(family.source, members[name])
        packs = [
            (each.name, members[name].objects.get_verified(each.name)) for each in members[name].objects.list(PACKS)
        ]
        seeds.append(
            {
                data[offset + RECORD_HEADER_BYTES :][:36]
                for pack, data in packs
                for offset, _ in scan_records(pack, data)
            }
        )
    assert not seeds[0] & seeds[1]
    assert not run_sync(members["encrypted"], members["padded"]).copied


def test_what_is_sealed_is_copied_as_it_is_to_members_with_the_same_secret():
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
    another = make_repository(MemoryStore("third"), KeyFile(bytes(32)), like=family.source)
    run_sync(family.source, another)
    for folder in ("packs/", "maps/", "snapshots/"):
        assert names_of(another, folder) == names_of(family.source, folder)
    family.assert_whole(another, 3)
