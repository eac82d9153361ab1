# SPDX-License-Identifier: Apache-2.0
"""How people name snapshots."""

from __future__ import annotations

from datetime import timedelta

import pytest

from deltaimg.errors import AmbiguousSnapshot, SnapshotNotFound, UsageError
from deltaimg.repo.selector import check_image_name, select_snapshot
from tests.support.clock import FixedClock
from tests.support.images import make_mixed_image
from tests.support.repositories import back_up_image, make_repository


@pytest.fixture
def snapshots(clock: FixedClock) -> tuple[object, list[str]]:
    repository = make_repository()
    image = make_mixed_image(50_000)
    ids = []
    for _ in range(3):
        ids.append(back_up_image(repository, image, clock=clock).id)
        clock.now += timedelta(days=1)
    ids.append(back_up_image(repository, image, "other", clock=clock).id)
    return repository, ids


def test_every_way_to_name_a_snapshot(snapshots: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    repository, ids = snapshots
    for selector, number in (
        ("vm1", 2),
        ("vm1@latest", 2),
        ("vm1@latest~2", 0),
        ("vm1~1", 1),
        ("vm1@2026-11-24", 1),
        ("vm1@2026-11-24T12:00", 1),
        ("vm1@2026-11-23T02:30+00:00", 0),
        (ids[1], 1),
        (ids[1][:10], 1),
        (f"vm1@{ids[0][:10]}", 0),
        ("other", 3),
    ):
        assert select_snapshot(repository, selector).id == ids[number], selector


@pytest.mark.parametrize(
    "selector", ["vm9", "vm1@latest~3", "vm1@2026-11-30", "vm1@2020-01-01T00:00", "zzz", "", "vm1@xyz", "vm1@"]
)
def test_what_nothing_answers_to_is_not_found(snapshots: tuple, selector: str) -> None:
    with pytest.raises(SnapshotNotFound) as caught:
        select_snapshot(snapshots[0], selector)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("selector", "said"),
    [
        ("vm", "did you mean vm1?"),
        ("othr~1", "did you mean other?"),
        ("vn1@2026-11-24", "did you mean vm1?"),
        ("0ther", "did you mean other?"),
        ("deadbeef", "images here: other, vm1"),
    ],
)
def test_a_name_that_no_image_has_gets_those_that_are_like_it(snapshots: tuple, selector: str, said: str) -> None:
    with pytest.raises(SnapshotNotFound) as caught:
        select_snapshot(snapshots[0], selector)
    assert caught.value.hint == said


def test_a_prefix_of_two_ids_is_ambiguous(monkeypatch: pytest.MonkeyPatch) -> None:
    repository = make_repository()
    image = make_mixed_image(50_000)
    seen: dict[str, str] = {}
    while True:
        new = back_up_image(repository, image).id
        if new[0] in seen:
            break
        seen[new[0]] = new
    with pytest.raises(AmbiguousSnapshot, match=r"matches 2 snapshots"):
        select_snapshot(repository, new[0])


@pytest.mark.parametrize(
    "name", ["", "a/b", "..", ".hidden", "-x", "a\nb", "a\x00b", "x" * 300, "ä" * 150, "a@b", "a~1", " a", "a ", "a*"]
)
def test_impossible_image_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        check_image_name(name)


@pytest.mark.parametrize("name", ["vm1", "web-01.example.org", "Gäste VM", "a" * 200, "日本"])
def test_other_image_names_are_taken(name: str) -> None:
    repository = make_repository()
    image = make_mixed_image(30_000)
    assert select_snapshot(repository, f"{name}@latest" if back_up_image(repository, image, name) else "").image == name
