# SPDX-License-Identifier: Apache-2.0
"""Which snapshot of a group a selector means, among images that are called as its members are."""

from __future__ import annotations

import pytest

from deltaimg.engine.backup.group import MemberSource, back_up_group
from deltaimg.engine.progress import NoProgress
from deltaimg.errors import IntegrityError, SnapshotNotFound, UsageError
from deltaimg.format.manifest import Group
from deltaimg.options.backup import BackupOptions
from deltaimg.repo.groups import select_group
from deltaimg.repo.repository import Repository
from tests.support.clock import FixedClock
from tests.support.images import SyntheticSource, make_mixed_image
from tests.support.repositories import back_up_image, make_repository

IMAGE = make_mixed_image(20_000)
DISKS = ("web1.root", "web1.data")


def back_up_both(repository: Repository, clock: FixedClock) -> str:
    """Back up the group a day later; return the id of its first member's snapshot."""
    clock.advance(days=1)
    members = [MemberSource(image, SyntheticSource(IMAGE), BackupOptions()) for image in DISKS]
    made = back_up_group(
        repository, Group(name="web1", members=DISKS), members, None, progress=NoProgress(), clock=clock
    )
    return made[0].id


@pytest.fixture
def made() -> tuple[Repository, list[str]]:
    """A group of three moments; one of its members was backed up alone between and after them, and so was another image."""
    repository, clock, ids = make_repository(), FixedClock(), []
    for _ in range(3):
        ids.append(back_up_both(repository, clock))
        for image in ("web1.root", "web1.old"):
            clock.advance(hours=1)
            back_up_image(repository, IMAGE, image, clock=clock)
    return repository, ids


@pytest.mark.parametrize(
    ("selector", "number"),
    [
        ("web1", 2),
        ("web1@latest", 2),
        ("web1~1", 1),
        ("web1@latest~2", 0),
        ("web1@2026-11-25", 1),
        ("web1@2026-11-25T23:00", 1),
    ],
)
def test_a_moment_of_a_group_is_one_of_the_group(
    made: tuple[Repository, list[str]], selector: str, number: int
) -> None:
    found = select_group(made[0], selector)
    assert found.snapshots[0].manifest.id == made[1][number]
    assert found.missing == ()


def test_moments_that_are_none_of_the_group_are_not_counted(made: tuple[Repository, list[str]]) -> None:
    with pytest.raises(SnapshotNotFound) as caught:
        select_group(made[0], "web1~3")
    assert caught.value.hint == "'web1' has 3 snapshots"
    with pytest.raises(UsageError, match="is in no group"):
        select_group(made[0], "web1.old")


def test_a_damaged_moment_is_counted_and_is_an_error(made: tuple[Repository, list[str]]) -> None:
    repository, ids = made
    [ref] = [each for each in repository.list_snapshots() if each.id == ids[2]]
    repository.objects.store.replace(ref.object_name, [b"damaged"])
    with pytest.raises(IntegrityError):
        select_group(repository, "web1")
    assert select_group(repository, "web1~1").snapshots[0].manifest.id == ids[1]
