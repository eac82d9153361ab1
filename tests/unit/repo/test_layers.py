# SPDX-License-Identifier: Apache-2.0
"""Map layers: what is stored of an image, what comes out of layers again, and what snapshots need of each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltaimg.arrays import FIRST_SLOT, RUN, Runs, end_blocks
from deltaimg.delta.match import Matcher
from deltaimg.errors import IntegrityError, SnapshotIncomplete
from deltaimg.format.index import parse_index
from deltaimg.format.limits import MAX_LAYERS
from deltaimg.format.manifest import Manifest
from deltaimg.format.map import MAPS, MapObject
from deltaimg.repo.cover import Cover
from deltaimg.repo.index import load_index
from deltaimg.repo.layer_tree import LayerNode, grow_trees, walk_layers
from deltaimg.repo.layers import resolve_map
from deltaimg.repo.repository import Repository
from deltaimg.repo.slots import SlotTable
from tests.golden.samples import FULL
from tests.support.clock import START, FixedClock
from tests.support.images import SyntheticImage
from tests.support.repositories import assert_restores, back_up_image, make_repository


def resolve(repository: Repository, manifest: Manifest) -> Runs:
    return resolve_map(repository, manifest, SlotTable(repository, load_index(repository))).runs


def test_a_long_chain_resolves_at_once_and_lists_few_layers() -> None:
    repository = make_repository()
    image = SyntheticImage(4 << 20, seed=9)
    image.write_pages(0, 3 << 20)
    counts = []
    for _ in range(140):
        image.write_random(image.random.randrange(1 << 20), 3000)
        manifest = back_up_image(repository, image)
        counts.append(len(manifest.maps))
    assert max(counts) <= MAX_LAYERS
    assert 2 <= counts.count(1) <= 14, "a full map now and then, seldom"
    started = time.monotonic()
    runs = resolve(repository, manifest)
    assert time.monotonic() - started < 5
    assert int(end_blocks(runs)[-1]) == 1024
    assert_restores(repository, manifest, image.content)


def test_no_other_manifest_is_needed() -> None:
    repository = make_repository()
    image = SyntheticImage(1 << 20)
    image.write_random(0, 1 << 19)
    manifests = [back_up_image(repository, image)]
    for _ in range(5):
        image.write_random(0, 10_000)
        manifests.append(back_up_image(repository, image))
    for each in manifests[:-1]:
        repository.objects.store.delete(each.object_name)
    assert_restores(repository, manifests[-1], image.content)


def test_an_unchanged_image_adds_no_layer() -> None:
    repository = make_repository()
    image = SyntheticImage(1 << 20)
    image.write_random(0, 1 << 19)
    first = back_up_image(repository, image)
    second = back_up_image(repository, image)
    assert second.maps == first.maps
    image.resize((1 << 20) - 5000)
    third = back_up_image(repository, image)
    assert third.maps[:-1] == first.maps
    assert_restores(repository, third, image.content)


def test_a_missing_layer_is_named_with_the_snapshot() -> None:
    repository = make_repository()
    image = SyntheticImage(1 << 20)
    image.write_random(0, 1 << 19)
    back_up_image(repository, image)
    image.write_random(0, 10_000)
    second = back_up_image(repository, image)
    repository.objects.store.delete(MAPS + second.maps[0])
    with pytest.raises(SnapshotIncomplete, match=f"{second.label} needs maps/{second.maps[0]}"):
        resolve(repository, second)


def test_layers_that_leave_a_gap_or_are_of_another_size_are_refused() -> None:
    repository = make_repository()
    image = SyntheticImage(1 << 20)
    image.write_random(0, 1 << 20)
    back_up_image(repository, image)
    image.write_random(0, 10_000)
    second = back_up_image(repository, image)
    with pytest.raises(IntegrityError, match="do not cover"):
        resolve(repository, msgspec.structs.replace(second, maps=second.maps[1:]))
    with pytest.raises(IntegrityError, match="another size"):
        resolve(repository, msgspec.structs.replace(second, size_bytes=1 << 19))


def test_a_record_that_newer_layers_cover_may_be_gone() -> None:
    """A prune deletes it, and leaves the map that names it as it is."""
    repository = make_repository()
    image = SyntheticImage(1 << 20, seed=3)
    image.write_random(0, 1 << 20)
    first = back_up_image(repository, image, delta="none", clock=FixedClock())
    image.write_random(0, 1 << 20)
    second = back_up_image(repository, image, delta="none", clock=FixedClock(START + timedelta(days=1)))
    assert len(second.maps) == 2
    indexes = {name: parse_index(repository.objects.store.get(name), name) for name in list_names(repository, "index/")}
    repository.objects.store.delete(min(indexes, key=lambda name: indexes[name].created_us))
    assert_restores(repository, second, image.content)
    with pytest.raises(IntegrityError, match="which no index has"):
        resolve(repository, first)


def list_names(repository: Repository, folder: str) -> list[str]:
    return [found.name for found in repository.objects.store.list(folder)]


# -- covers and trees, against plain Python -----------------------------------------------------------------------------

Image = list[int | None]
"""What a layer says of each block: a slot, or None for nothing; its length is that of the image."""

_layers = st.integers(1, 12).flatmap(
    lambda count: st.lists(st.none() | st.integers(0, 40), min_size=count, max_size=count)
)


def as_layer(image: Image) -> MapObject:
    """Return a layer of one record for each slot."""
    runs = [(block, 1, slot) for block, slot in enumerate(image) if slot is not None]
    ids = np.arange(40 * 16, dtype=np.uint8).reshape(40, 16)
    return MapObject(len(image), ids, np.ones(40, np.uint16), np.array(runs, RUN))


def expand(runs: Runs) -> dict[int, int]:
    return {
        first + step: slot + (step if slot >= FIRST_SLOT else 0)
        for first, count, slot in runs.tolist()
        for step in range(count)
    }


@settings(max_examples=200, deadline=None)
@given(st.lists(_layers, min_size=1, max_size=5))
def test_what_layers_leave_uncovered(layers: list[Image]) -> None:
    """From the newest down: of each layer what no newer one has, and nothing past the end of a newer image."""
    cover = Cover.nothing()
    seen: set[int] = set()
    end = 99
    for image in layers:
        found = expand(cover.uncovered(as_layer(image)))
        expected = {
            block: slot for block, slot in enumerate(image) if slot is not None and block not in seen and block < end
        }
        assert found == expected
        cover = cover.add(as_layer(image))
        seen |= {block for block, slot in enumerate(image) if slot is not None}
        end = min(end, len(image))


@settings(max_examples=200, deadline=None)
@given(_layers, _layers, _layers)
def test_covers_of_two_paths_join_to_what_both_cover(one: Image, two: Image, below: Image) -> None:
    covers = [Cover.nothing().add(as_layer(image)) for image in (one, two)]
    needed = [expand(each.uncovered(as_layer(below))) for each in covers]
    joined = covers[0].intersect(covers[1])
    assert expand(joined.uncovered(as_layer(below))) == needed[0] | needed[1]
    assert joined.end == max(len(one), len(two))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_walk_over_trees_finds_what_each_snapshot_needs(data: st.DataObject) -> None:
    """Chains that fork anywhere, with snapshots at any of their layers."""
    images = data.draw(st.lists(_layers, min_size=1, max_size=8))
    below = [data.draw(st.integers(-1, place - 1)) for place in range(len(images))]
    lists = []
    for place in range(len(images)):
        path = [place]
        while below[path[-1]] >= 0:
            path.append(below[path[-1]])
        lists.append(path[::-1])
    chosen = data.draw(st.lists(st.sampled_from(lists), min_size=1, max_size=6))
    manifests = [_listing(number, path) for number, path in enumerate(chosen)]
    expected: dict[int, dict[int, int]] = {}
    for path in chosen:
        cover = Cover.nothing()
        for place in reversed(path):
            expected.setdefault(place, {}).update(expand(cover.uncovered(as_layer(images[place]))))
            cover = cover.add(as_layer(images[place]))
    loads: list[int] = []

    def load(node: LayerNode) -> MapObject:
        loads.append(int(node.digest, 16))
        return as_layer(images[int(node.digest, 16)])

    found = {int(each.node.digest, 16): expand(each.runs) for each in walk_layers(grow_trees(manifests), load)}
    assert found == expected
    assert sorted(loads) == sorted(expected), "each layer is read once"


def _listing(number: int, path: Sequence[int]) -> Manifest:
    return msgspec.structs.replace(FULL, id=f"{number:016x}", maps=tuple(f"{place:064x}" for place in path))


def test_a_layer_that_cannot_be_read_covers_nothing() -> None:
    manifests = [_listing(1, [0, 1, 2])]
    layers = {0: [2, 3, 4], 1: [5, 5, None], 2: [None, None, 9]}
    walked = walk_layers(
        grow_trees(manifests),
        lambda node: None if node.digest.endswith("1") else as_layer(layers[int(node.digest, 16)]),
    )
    assert {int(each.node.digest, 16): expand(each.runs) for each in walked} == {2: {2: 9}, 0: {0: 2, 1: 3}}


# -- matching -----------------------------------------------------------------------------------------------------------


def test_the_matcher_agrees_with_a_dictionary_as_its_table_grows(seed: int) -> None:
    chance = np.random.default_rng(seed)
    digests = np.zeros((2, 16), np.uint8)
    matcher = Matcher(digests, 2)
    known: dict[bytes, int] = {}
    pool = chance.integers(0, 256, (30_000, 16), dtype=np.uint8)
    for _ in range(40):
        wanted = pool[chance.integers(0, len(pool), 2000)]
        slots = matcher.match(wanted)
        for digest, slot in zip(wanted, slots.tolist(), strict=True):
            assert known.setdefault(digest.tobytes(), slot) == slot
    assert matcher.slot_count == 2 + len(known)
    assert matcher.memory_bytes <= 2 * (16 + 9.2) * len(known)


def test_what_the_matcher_takes_follows_the_budget() -> None:
    repository = make_repository()
    image = SyntheticImage(8 << 20)
    image.write_random(0, 8 << 20)
    back_up_image(repository, image, "a")
    from deltaimg.engine.backup.base import BYTES_A_KNOWN_BLOCK, load_other_content
    from deltaimg.engine.progress import NoProgress

    for budget in (0, 20_000, 1 << 20):
        table = SlotTable(repository, load_index(repository))
        load_other_content(table, 4096, budget, NoProgress())
        assert (table.slot_count - FIRST_SLOT) * BYTES_A_KNOWN_BLOCK <= budget
        matcher = Matcher(table.digests, table.slot_count)
        matcher.add_slots(FIRST_SLOT, table.slot_count - FIRST_SLOT) if table.slot_count > FIRST_SLOT else None
        assert matcher.memory_bytes <= budget + 40_000, "the smallest table is 16 KiB"
