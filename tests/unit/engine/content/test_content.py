# SPDX-License-Identifier: Apache-2.0
"""The content of snapshots: read at any offset, walked in steps, and lost no further than what cannot be read reaches."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest

from deltaimg.engine.content.record_cache import RecordCache
from deltaimg.engine.content.snapshot import SnapshotContent
from deltaimg.errors import ContentDamaged, IntegrityError, UsageError
from deltaimg.format.record import RECORD_HEADER_BYTES
from deltaimg.repo.index import load_index
from deltaimg.store.memory import MemoryStore
from tests.support.chains import PAGE, make_chain
from tests.support.flips import flip_object


@pytest.fixture(scope="module")
def opened() -> tuple[SnapshotContent, bytes]:
    repository, manifest, image = make_chain()
    content = SnapshotContent(repository, manifest, load_index(repository))
    assert content.table.depths_of(content.closure).max() > 0
    return content, image


def write_into(image: bytearray) -> object:
    def place(ranges: np.ndarray, content: memoryview) -> None:
        for offset, length, start in ranges.tolist():
            image[offset : offset + length] = content[start : start + length]

    return place


def damage_record(content: SnapshotContent, store: MemoryStore, record: int) -> None:
    row = content.table.index_rows(np.array([record]))[0]
    name = content.table.pack_of(record)
    place = int(row["offset"]) + RECORD_HEADER_BYTES + int(row["payload_bytes"]) - 1
    flip_object(store, name, place)


def supplied_by(content: SnapshotContent, record: int) -> list[tuple[int, int]]:
    return [(each.start, each.end) for each in content.extents_of(record)]


def find_source_of_a_delta(content: SnapshotContent) -> int:
    deltas = content.records[content.table.are_deltas(content.records)]
    return int(content.table.source_records(deltas[:1])[0][0])


@pytest.mark.parametrize("cache_bytes", [1, 128 << 20])
def test_reads_at_any_offset_are_the_image(opened: tuple[SnapshotContent, bytes], cache_bytes: int, seed: int) -> None:
    content, image = opened
    reader, chance = content.make_reader(cache_bytes), random.Random(seed)
    for _ in range(40):
        offset, length = chance.randrange(len(image) + PAGE), chance.choice((0, 1, PAGE, 3 * PAGE + 7, len(image)))
        assert reader.read(offset, length) == image[offset : offset + length]
    with pytest.raises(UsageError):
        reader.read(-1, 1)


def test_a_reader_in_order_is_the_image(opened: tuple[SnapshotContent, bytes]) -> None:
    content, image = opened
    with content.open_in_order(workers=2) as reader:
        assert b"".join(reader.read(at, 10_000) for at in range(0, len(image), 10_000)) == image


@pytest.mark.parametrize("reads_back", [False, True])
def test_a_walk_places_every_block_once(opened: tuple[SnapshotContent, bytes], reads_back: bool) -> None:
    content, image = opened
    restored = bytearray(len(image))

    def read_back(ranges: np.ndarray, out: memoryview) -> None:
        for offset, length, start in ranges.tolist():
            out[start : start + length] = restored[offset : offset + length]

    plan = content.plan(can_read_back=reads_back)
    walked = list(
        content.walk(
            plan, write_into(restored), read_back=read_back if reads_back else None, keep_going=False, workers=2
        )
    )
    assert bytes(restored) == image
    assert sum(each.decoded_bytes for each in walked) == plan.decoded_bytes
    assert plan.read_bytes > 0
    assert len(plan.kept.slots) <= len(content.plan().kept.slots)


def test_each_step_of_a_plan_needs_those_before_it_only(opened: tuple[SnapshotContent, bytes]) -> None:
    content, _ = opened
    done: set[int] = set()
    for step in content.plan().steps:
        records = np.concatenate([group.records for group in step])
        assert set(content.table.source_records(records)[0].tolist()) <= done
        done |= set(records.tolist())
    assert done == set(content.closure.tolist())


def test_zero_extents_and_records_share_the_image_out(opened: tuple[SnapshotContent, bytes]) -> None:
    content, image = opened
    zero = [(each.start, each.end) for each in content.zero_extents()]
    assert (3 * PAGE, 5 * PAGE) in zero
    assert all(not any(image[start:end]) for start, end in zero)
    supplied = [extent for record in content.records.tolist() for extent in supplied_by(content, record)]
    ends = 0
    for start, end in sorted(zero + supplied):
        assert start == ends
        ends = end
    assert ends == len(image)
    assert content.bytes_of(content.records) == sum(end - start for start, end in supplied)


def test_a_damaged_source_costs_what_depends_on_it_and_nothing_else() -> None:
    store = MemoryStore()
    repository, manifest, image = make_chain(store)
    content = SnapshotContent(repository, manifest, load_index(repository))
    lost = find_source_of_a_delta(content)
    affected = content.dependents_of([lost])
    assert set(affected.values()) == {lost}
    damage_record(content, store, lost)
    restored = bytearray(len(image))
    walked = list(content.walk(content.plan(), write_into(restored), keep_going=True, workers=2))
    damaged = sorted((extent.start, extent.end) for each in walked for extent in each.damage)
    assert damaged == sorted(extent for record in affected for extent in supplied_by(content, record))
    for start, end in damaged:
        restored[start:end] = image[start:end]
    assert bytes(restored) == image
    with pytest.raises(IntegrityError):
        list(content.walk(content.plan(), None, keep_going=False, workers=2))


def test_a_reader_raises_or_leaves_out_what_is_damaged() -> None:
    store = MemoryStore()
    repository, manifest, image = make_chain(store)
    content = SnapshotContent(repository, manifest, load_index(repository))
    lost = find_source_of_a_delta(content)
    affected = content.dependents_of([lost])
    damage_record(content, store, lost)
    with pytest.raises(ContentDamaged):
        content.make_reader().read(0, len(image))
    found, damage = content.make_reader().read_what_is_left(0, len(image))
    extents = {extent for record in affected for extent in supplied_by(content, record)}
    assert {(extent.start, extent.end) for extent in damage} == extents
    whole = bytearray(image)
    for start, end in extents:
        whole[start:end] = bytes(end - start)
    assert found == bytes(whole)


def test_a_cache_keeps_no_more_than_it_may(opened: tuple[SnapshotContent, bytes]) -> None:
    content, _ = opened
    reader = content._reader
    cache = RecordCache(reader, content.table, PAGE, cache_bytes=100 * PAGE)
    for record in content.closure.tolist():
        assert len(cache.get(record)) == int(content.table.slot_counts[record]) * PAGE
        assert cache._kept_bytes == sum(map(len, cache._kept.values())) <= max(100 * PAGE, len(cache.get(record)))


def test_a_source_is_expanded_once_however_often_a_delta_is_read(
    opened: tuple[SnapshotContent, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each read of a delta went down its whole chain again, since few expanded records are kept: here one."""
    content, image = opened
    expanded: Counter[int] = Counter()
    expand = content._reader.expand

    def count(record: int, *arguments: Any) -> memoryview:
        expanded[record] += 1
        return expand(record, *arguments)

    monkeypatch.setattr(content._reader, "expand", count)
    depths = content.table.depths_of(content.records)
    delta = int(content.records[np.argmax(depths)])
    chain = set(content.table.add_sources(np.array([delta])).tolist())
    other = next(record for record in content.records.tolist() if record not in chain)
    with content.make_reader(cache_bytes=1) as reader:
        for _ in range(3):
            for record in (delta, other):
                (start, _), *_ = supplied_by(content, record)
                assert reader.read(start, PAGE) == image[start : start + PAGE]
    assert expanded[delta] == 3
    assert len(chain) > 1
    assert [expanded[record] for record in chain - {delta}] == [1] * (len(chain) - 1)
