# SPDX-License-Identifier: Apache-2.0
"""What a dry run says that forgetting frees."""

from __future__ import annotations

from deltaimg.engine.retention.forget import forget_images, plan_forget
from deltaimg.engine.retention.reclaimable import ReclaimableGroup, find_reclaimable
from deltaimg.format.manifest import Manifest
from deltaimg.format.map import MAPS
from deltaimg.repo.repository import Repository
from deltaimg.repo.retention import plan_named
from deltaimg.store.memory import MemoryStore
from tests.support.clock import FixedClock
from tests.support.history import make_history
from tests.support.images import PAGE, SyntheticImage
from tests.support.repositories import Warnings, back_up_image, make_repository

SIZE = 64 * PAGE


def count(repository: Repository, *forgotten: Manifest) -> list[ReclaimableGroup]:
    ids = frozenset(each.id for each in forgotten)
    images = sorted({each.image for each in forgotten})
    plans = [plan_forget(repository, image, lambda all_: plan_named(all_, ids, is_forced=True)) for image in images]
    return find_reclaimable(repository, plans)


def figures(groups: list[ReclaimableGroup]) -> list[tuple[int, int]]:
    """Return how many snapshots are in each group, and what it frees in pages."""
    return [(len(group.refs), group.reclaimable_bytes // PAGE) for group in groups]


def rewrite(repository: Repository, image: SyntheticImage, clock: FixedClock, pages: int = 64) -> Manifest:
    """Back up an image of which so many pages were rewritten."""
    image.write_random(0, pages * PAGE)
    clock.advance(days=1)
    return back_up_image(repository, image, clock=clock, delta="none")


def test_neighbours_that_go_together_have_one_figure() -> None:
    repository, image, clock = make_repository(), SyntheticImage(SIZE, seed=5), FixedClock()
    a, b, c, d, e, f = (rewrite(repository, image, clock) for _ in range(6))
    assert figures(count(repository, a, b, d)) == [(2, 128), (1, 64)]
    assert figures(count(repository, b, c, d, e)) == [(4, 256)]
    assert figures(count(repository, a, c, e, f)) == [(1, 64), (1, 64), (2, 128)]


def test_what_lives_on_in_a_neighbour_that_stays_is_not_freed() -> None:
    repository, image, clock = make_repository(), SyntheticImage(SIZE, seed=5), FixedClock()
    first = rewrite(repository, image, clock)
    second = rewrite(repository, image, clock, pages=16)
    third = rewrite(repository, image, clock, pages=16)
    assert figures(count(repository, first)) == [(1, 16)], "part of a record"
    assert figures(count(repository, first, second)) == [(2, 32)]
    assert figures(count(repository, second, third)) == [(2, 32)]


def test_snapshots_without_changes_of_their_own_free_nothing_alone_and_all_of_it_together() -> None:
    repository, image, clock = make_repository(), SyntheticImage(SIZE, seed=5), FixedClock()
    first = rewrite(repository, image, clock)
    clock.advance(days=1)
    same = back_up_image(repository, image, clock=clock)
    rewrite(repository, image, clock)
    assert figures(count(repository, first)) == [(1, 0)]
    assert figures(count(repository, same)) == [(1, 0)]
    assert figures(count(repository, first, same)) == [(2, 64)]


def test_what_two_images_share_goes_with_both() -> None:
    repository, image, clock = make_repository(), SyntheticImage(SIZE, seed=5), FixedClock()
    image.write_random(0, SIZE)
    one, two = (back_up_image(repository, image, name, clock=clock, delta="none") for name in ("vm1", "vm2"))
    rewrite(repository, image, clock)
    image.write_random(0, SIZE)
    back_up_image(repository, image, "vm2", clock=clock)
    assert figures(count(repository, one)) == [(1, 0)]
    assert figures(count(repository, one, two)) == [(1, 64), (1, 0)]


def test_what_others_are_encoded_against_is_not_freed() -> None:
    repository, image, clock = make_repository(), SyntheticImage(SIZE, seed=5), FixedClock()
    image.write_random(0, SIZE)
    first = back_up_image(repository, image, clock=clock)
    for offset in range(100, SIZE, PAGE):
        image.write(offset, b"changed")
    clock.advance(days=1)
    second = back_up_image(repository, image, clock=clock, delta="zstd")
    assert second.statistics.stored_bytes < SIZE // 2
    assert figures(count(repository, first)) == [(1, 0)]
    (group,) = count(repository, first, second)
    assert group.reclaimable_bytes >= SIZE


def test_a_chain_longer_than_its_layers_is_counted_once() -> None:
    """A new full map names again what the layers before it named."""
    repository, image, clock = make_repository(), SyntheticImage(SIZE, seed=5), FixedClock()
    manifests = [rewrite(repository, image, clock)]
    while len(manifests[-1].maps) > 1 or len(manifests) == 1:
        manifests.append(rewrite(repository, image, clock, pages=1))
    assert figures(count(repository, *manifests)) == [(len(manifests), 64 + len(manifests) - 1)]
    assert figures(count(repository, *manifests[:-1])) == [(len(manifests) - 1, len(manifests) - 1)]


def test_a_plan_of_what_cannot_be_told_says_so_and_is_made_all_the_same() -> None:
    history = make_history(3)
    store = history.repository.objects.store
    assert isinstance(store, MemoryStore)
    name = MAPS + history.snapshots[2].manifest.maps[-1]
    store.objects[name] = store.objects[name][:-1]
    warnings = Warnings()
    results = forget_images(
        history.repository,
        {"vm1": lambda all_: plan_named(all_, frozenset([history.snapshots[2].id]))},
        is_dry_run=True,
        progress=warnings,
    )
    assert results[0].plan is not None
    assert results[0].reclaimable is None
    assert "what would be freed is not known" in warnings.messages[0]
