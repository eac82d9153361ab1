# SPDX-License-Identifier: Apache-2.0
"""A member of a repository's family, which a sync filled, repairs it; a repository of another family does not."""

from __future__ import annotations

import pytest

from deltaimg.engine.repair.run import repair
from deltaimg.engine.retention.annotate import set_pin
from deltaimg.errors import IntegrityError, ObjectNotFound
from deltaimg.format.config import parse_config
from deltaimg.repo.repository import Repository
from deltaimg.repo.snapshots import load_snapshot
from deltaimg.store.memory import MemoryStore
from tests.support.clock import FixedClock
from tests.support.flips import flip
from tests.support.images import make_mixed_image
from tests.support.repositories import back_up_image
from tests.support.sync import Family, make_family, make_like, run_sync

FOLDERS = ["packs/", "maps/", "signatures/", "index/", "snapshots/"]


@pytest.fixture
def family() -> Family:
    return make_family(3, size_bytes=300_000)


def damage(repository: Repository, folder: str, *, is_lost: bool) -> None:
    """Flip a byte of every object of a folder, or remove them all."""
    objects = repository.objects.store.objects
    for name in [name for name in objects if name.startswith(folder)]:
        data = objects.pop(name)
        if not is_lost:
            objects[name] = flip(data)


@pytest.mark.parametrize("is_lost", [False, True], ids=["damaged", "lost"])
@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("is_gathered", [False, True], ids=["whole packs", "gathered"])
def test_a_member_of_the_family_makes_everything_whole(family: Family, folder: str, is_lost: bool, is_gathered: bool):
    member = make_like(family.source)
    if is_gathered:  # by day, so that packs of both differ
        for number in range(1, 4):
            run_sync(family.source, member, since=family.clock.now.replace(day=family.clock.now.day - 3 + number))
    run_sync(family.source, member)
    back_up_image(member, make_mixed_image(200_000, 7), "own", clock=FixedClock())
    damage(family.source, folder, is_lost=is_lost)
    report = repair(family.source, copy=member, clock=FixedClock())
    assert report.damage == ()
    family.assert_whole(family.source, 3)
    assert not family.source.list_snapshots("own")


def test_what_a_member_says_of_a_snapshot_stays_there(family: Family):
    member = make_like(family.source)
    run_sync(family.source, member)
    newest = member.list_snapshots()[-1]
    set_pin(member, newest, "kept there")
    repair(family.source, copy=member, clock=FixedClock())
    assert load_snapshot(family.source, newest).pin_reason is None


def test_a_config_from_a_member_has_a_new_id_and_one_from_a_copy_the_old_one(family: Family):
    member = make_like(family.source)
    run_sync(family.source, member)
    store = family.source.objects.store
    copy = MemoryStore("copy")
    copy.objects = dict(store.objects)
    for place, is_copy in ((member, False), (Repository.open(copy), True)):
        damage(family.source, "config", is_lost=True)
        with pytest.raises((IntegrityError, ObjectNotFound)):
            parse_config(family.source.objects.get_bytes("config"))
        opened = Repository.open_like(store, place)
        assert opened is not None
        assert repair(opened, copy=place, clock=FixedClock()).damage == ()
        found = Repository.open(store).config
        assert found.digest_key == place.config.digest_key
        assert found.family_id == family.source.config.repository_id
        assert found.repository_id != member.config.repository_id
        assert (found.repository_id == family.source.config.repository_id) == is_copy
        family.assert_whole(Repository.open(store), 3)
