# SPDX-License-Identifier: Apache-2.0
"""Whatever loss the parity promises to survive, it survives; beyond that comes an error, and never a wrong byte."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltaimg.engine.parity.plan import choose_shape
from deltaimg.engine.parity.protection import survey_parity
from deltaimg.errors import ParityExhausted
from deltaimg.format.framing import name_object
from deltaimg.format.limits import MAX_PARITY_COLUMNS
from deltaimg.format.pack import pack_name
from deltaimg.format.parity import TRAILER
from deltaimg.options.parity import MAX_PERCENT, MIN_PERCENT
from deltaimg.repo.parity import load_parity, recover_pack
from tests.support.parity import overwrite, protect, repository_of_packs

SOME = settings(max_examples=25, deadline=None)
SIZES = st.lists(st.integers(1, 60_000), min_size=1, max_size=9)
PERCENTS = st.sampled_from([0.5, 1, 5, 10, 50, 100])


@given(
    sizes=st.lists(st.integers(65, 40 << 20), min_size=1, max_size=90),
    percent=st.floats(MIN_PERCENT, MAX_PERCENT),
)
def test_parity_has_room_for_all_shards_and_is_of_the_percentage(sizes: list[int], percent: float) -> None:
    shape = choose_shape(sizes, percent)
    shards = sum(-(-size // shape.shard_bytes) for size in sizes)
    columns, stripes = shape.data_columns, shape.stripe_count
    assert (columns - 1) * stripes < shards <= columns * stripes
    assert columns + shape.parity_columns <= MAX_PARITY_COLUMNS
    parity = shape.parity_columns * stripes * shape.shard_bytes
    assert parity * 100 >= sum(sizes) * percent
    if sum(sizes) > 16 << 20 and percent >= 1:
        assert parity <= sum(sizes) * (percent + 2) / 100 + stripes * shape.shard_bytes


@SOME
@given(sizes=SIZES, percent=PERCENTS, seed=st.integers(0, 2**32), data=st.data())
def test_damage_in_one_place_up_to_the_promise_is_repaired(sizes, percent, seed, data):
    repository, store, packs = repository_of_packs(sizes, seed)
    protect(repository, percent)
    (group,) = survey_parity(repository).groups
    assert group.survives_bytes > 0
    order = load_parity(repository).groups[0].layout.packs
    total = sum(len(packs[pack]) for pack in order)
    start = data.draw(st.integers(0, total - 1))
    left = group.survives_bytes
    chance = random.Random(seed)
    shard_bytes = load_parity(repository).groups[0].layout.shard_bytes
    for pack in order:
        size = len(packs[pack])
        if start < size and left > 0:
            overwrite(store, pack_name(pack), start, left, chance)
            # What fills a pack up to whole shards is as good as damaged with it.
            left -= size - start + -size % shard_bytes
            start = 0
        else:
            start = max(0, start - size)
    for pack in order:
        assert recover_pack(repository, pack) == packs[pack]


@SOME
@given(sizes=SIZES, percent=PERCENTS, seed=st.integers(0, 2**32), data=st.data())
def test_lost_packs_up_to_the_promise_are_recovered(sizes, percent, seed, data):
    repository, store, packs = repository_of_packs(sizes, seed)
    protect(repository, percent)
    (group,) = survey_parity(repository).groups
    lost = data.draw(st.permutations(sorted(packs)))[: group.survives_packs]
    for pack in lost:
        store.delete(pack_name(pack))
    for pack in packs:
        assert recover_pack(repository, pack) == packs[pack]


@SOME
@given(sizes=SIZES, percent=PERCENTS, seed=st.integers(0, 2**32), data=st.data())
def test_any_damage_at_all_gives_the_right_bytes_or_an_error(sizes, percent, seed, data):
    repository, store, packs = repository_of_packs(sizes, seed)
    protect(repository, percent)
    chance = random.Random(seed)
    names = [name for name in store.objects if name.startswith(("packs/", "parity/"))]
    for _ in range(data.draw(st.integers(1, 6))):
        name = data.draw(st.sampled_from(names))
        length = data.draw(st.sampled_from([1, 5000, 50_000]))
        if data.draw(st.integers(0, 9)) == 0:
            store.delete(name)
        elif name in store.objects:
            overwrite(store, name, data.draw(st.integers(0, max(0, len(store.objects[name]) - 1))), length, chance)
    parity = load_parity(repository)
    for pack, content in packs.items():
        try:
            found = recover_pack(repository, pack, parity)
        except ParityExhausted:
            pass
        else:
            assert found == content or (found is None and not parity.groups)


@SOME
@given(seed=st.integers(0, 2**32), data=st.data())
def test_damage_of_the_parity_object_itself_costs_no_more_than_the_shards_it_hits(seed, data):
    repository, store, packs = repository_of_packs([50_000, 70_000, 30_000], seed)
    protect(repository, 10)
    (group,) = load_parity(repository).groups
    chance = random.Random(seed)
    tables = group.layout
    # Either end may go: what the other has is enough. The planes between lose less than one of theirs.
    part = data.draw(st.sampled_from(["front", "planes", "twin"]))
    if part == "front":
        overwrite(store, group.name, 0, data.draw(st.integers(1, tables.planes_offset)), chance)
    elif part == "twin":
        whole = store.objects[group.name]
        store.objects[group.name] = whole[: -data.draw(st.integers(1, tables.planes_offset + TRAILER.size))]
    else:
        overwrite(store, group.name, tables.planes_offset, tables.stripe_count * tables.shard_bytes, chance)
    lost = data.draw(st.sampled_from(sorted(packs)))
    overwrite(store, pack_name(lost), 1000, tables.shard_bytes, chance)
    if part == "planes" and tables.parity_columns == 1:
        with pytest.raises(ParityExhausted):
            recover_pack(repository, lost)
    else:
        found = recover_pack(repository, lost)
        assert found is not None
        assert name_object([found]) == lost
