# SPDX-License-Identifier: Apache-2.0
"""A backup of a group that fails, or dies, at any call to the store: a snapshot of the group that looks whole is whole."""

from __future__ import annotations

from contextlib import suppress

import pytest

from deltaimg.engine.backup.group import MemberSource, back_up_group
from deltaimg.errors import DeltaimgError, GroupIncomplete, RepositoryLocked, StoreUnavailable
from deltaimg.format.manifest import Group, Manifest
from deltaimg.options.backup import BackupOptions
from deltaimg.repo.groups import select_group
from deltaimg.repo.lock import ImageLock
from deltaimg.repo.lock_waiting import LockWaiting
from deltaimg.repo.repository import Repository
from deltaimg.store.memory import MemoryStore
from tests.support.clock import FixedClock
from tests.support.faults import FaultyStore
from tests.support.images import SyntheticImage, SyntheticSource, edit_at_random, make_mixed_image
from tests.support.repositories import Warnings, assert_restores, make_repository, open_again
from tests.support.world import assert_sound, reboot

DISKS = ("g.disk0", "g.disk1", "g.disk2")
Images = dict[str, SyntheticImage]


def make_states() -> tuple[Images, Images]:
    """Return three disks, and the same a day later."""
    first = {name: make_mixed_image(60_000, seed) for seed, name in enumerate(DISKS)}
    second = {name: image.copy() for name, image in first.items()}
    for image in second.values():
        edit_at_random(image, 2)
    return first, second


def back_up(repository: Repository, images: Images, days: int) -> list[Manifest]:
    clock = FixedClock()
    clock.advance(days=days)
    members = [MemberSource(name, SyntheticSource(image), BackupOptions(workers=1)) for name, image in images.items()]
    group = Group(name="g", members=tuple(images))
    return back_up_group(repository, group, members, None, progress=Warnings(), clock=clock)


def after_one(first: Images) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Return a repository with one snapshot of the group, and what its members hold by id."""
    repository = make_repository(MemoryStore())
    manifests = back_up(repository, first, days=1)
    assert len({each.time for each in manifests}) == 1
    contents = {each.id: bytes(first[each.image].content) for each in manifests}
    return repository.objects.store.objects, contents  # type: ignore[attr-defined]


def store_with(objects: dict[str, bytes]) -> MemoryStore:
    store = MemoryStore()
    for name, data in objects.items():
        store.put(name, [data])
    return store


def open_patiently(store: object) -> Repository:
    repository = open_again(store)  # type: ignore[arg-type]
    repository.lock_waiting = LockWaiting(sleep=lambda _: None)
    return repository


@pytest.mark.parametrize("is_lasting", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("after_effect", [False, True], ids=["before", "after"])
def test_a_group_is_committed_whole_or_seen_to_be_incomplete(
    *, after_effect: bool, is_lasting: bool, is_long: bool
) -> None:
    first, second = make_states()
    objects, contents = after_one(first)
    seen = set()
    call = 0
    while True:
        store = store_with(objects)
        faulty = FaultyStore(store, StoreUnavailable("x", "gone"), after_effect=after_effect, is_lasting=is_lasting)
        repository = open_patiently(faulty)
        faulty.fail_after(call)
        failed = True
        with suppress(DeltaimgError):
            back_up(repository, second, days=2)
            failed = False
        if not faulty.has_failed:
            break
        after = open_patiently(store_with(reboot(store.objects)))
        refs = after.list_snapshots()
        assert contents.keys() <= {ref.id for ref in refs}, "a committed snapshot is gone"
        for ref in refs:
            assert_restores(after, after.load_manifest(ref), contents.get(ref.id, bytes(second[ref.image].content)))
        new = len(refs) - len(contents)
        seen.add(new)
        found = select_group(after, "g")
        if new in (0, len(DISKS)):
            found.check_whole()
        else:
            assert is_lasting, "a failure that passes is cleaned up after"
            assert found.missing == DISKS[new:]
            with pytest.raises(GroupIncomplete):
                found.check_whole()
            assert select_group(after, "g~1").missing == ()
        assert failed or new == len(DISKS)
        assert_sound(after)
        back_up(after, second, days=3)
        assert select_group(after, "g").missing == ()
        call += 1 if is_lasting or is_long else 3
    assert call > 30
    assert seen == ({0, 1, 2, 3} if is_lasting else {0, 3})


def test_a_group_of_which_a_member_is_locked_stores_nothing() -> None:
    first, second = make_states()
    objects, contents = after_one(first)
    repository = open_patiently(store_with(objects))
    with ImageLock(repository, "g.disk2", "a test", FixedClock()()), pytest.raises(RepositoryLocked):
        back_up(repository, second, days=2)
    assert {ref.id for ref in repository.list_snapshots()} == contents.keys()
