# SPDX-License-Identifier: Apache-2.0
"""The table of slots: numbers that never change, digests of the blocks, and answers that agree with the index."""

from __future__ import annotations

import numpy as np
import pytest

from deltaimg.arrays import DIGEST_BYTES, FIRST_SLOT, expand_ranges
from deltaimg.delta.registry import find_delta_decoder
from deltaimg.engine.content.record_cache import RecordCache
from deltaimg.errors import DigestMismatch, IntegrityError
from deltaimg.format.signature import SIGNATURES
from deltaimg.kernels import digest_blocks
from deltaimg.repo.index import LoadedIndex, load_index
from deltaimg.repo.record_reader import RecordReader
from deltaimg.repo.repository import Repository
from deltaimg.repo.slots import SlotTable
from deltaimg.store.memory import MemoryStore
from tests.support.chains import PAGE, make_chain


@pytest.fixture(scope="module")
def chain() -> Repository:
    return make_chain()[0]


@pytest.fixture
def index(chain: Repository) -> LoadedIndex:
    loaded = load_index(chain)
    assert loaded.links.depths.max() > 1
    return loaded


def deepest(index: LoadedIndex) -> np.ndarray:
    return np.flatnonzero(index.links.depths == index.links.depths.max())


def test_records_are_numbered_once_in_the_order_in_which_they_are_met(chain: Repository, index: LoadedIndex) -> None:
    table = SlotTable(chain, index)
    assert table.add_entries(np.array([3, 1, 3])).tolist() == [0, 1, 0]
    assert table.add_entries(np.array([0, 1])).tolist() == [2, 1]
    assert table.entries.tolist() == [3, 1, 0]
    counts = index.entries["slots"][[3, 1, 0]].astype(np.int64)
    assert table.first_slots.tolist() == (FIRST_SLOT + np.cumsum(counts) - counts).tolist()
    assert table.slot_count == FIRST_SLOT + counts.sum()
    slots = expand_ranges(table.first_slots, table.slot_counts)
    assert table.records_of(slots).tolist() == np.repeat([0, 1, 2], counts).tolist()


def test_records_are_found_by_id_once_they_have_a_number(chain: Repository, index: LoadedIndex) -> None:
    table = SlotTable(chain, index)
    table.add_entries(np.array([2]))
    ids = np.concatenate((index.entries["id"][[2, 0]], np.zeros((1, DIGEST_BYTES), np.uint8)))
    assert table.find_records(ids).tolist() == [0, -1, -1]
    table.add_entries(np.array([0]))
    assert table.find_records(ids).tolist() == [0, 1, -1]


def test_sources_are_all_that_records_need_and_no_more(chain: Repository, index: LoadedIndex) -> None:
    table = SlotTable(chain, index)
    records = table.add_entries(deepest(index))
    needed, waiting = set(), deepest(index).tolist()
    while waiting:
        entry = waiting.pop()
        if entry not in needed:
            needed.add(entry)
            waiting += index.links.entries[index.links.starts[entry] : index.links.starts[entry + 1]].tolist()
    closure = table.add_sources(records)
    assert set(table.entries[closure].tolist()) == needed
    assert len(needed) > len(records)
    assert table.add_sources(closure).tolist() == closure.tolist()


def test_what_was_taken_from_a_table_stays_right_when_sources_are_numbered(
    chain: Repository, index: LoadedIndex
) -> None:
    table = SlotTable(chain, index)
    records = table.add_entries(deepest(index))
    table.load_digests(records)

    def take() -> list[np.ndarray]:
        return [table.first_slots, table.slot_counts, table.entries, table.record_ids, table.is_loaded, table.digests]

    before = take()
    copies = [each.copy() for each in before]
    assert len(table.add_sources(records)) > len(records)
    for taken, copied, now in zip(before, copies, take(), strict=True):
        assert np.array_equal(taken, copied)
        assert np.array_equal(now[: len(taken)], taken)
        assert len(now) > len(taken)
    assert len(table.digests) == table.slot_count


def test_digests_are_those_of_the_blocks(chain: Repository, index: LoadedIndex) -> None:
    table = SlotTable(chain, index)
    records = table.add_sources(table.add_entries(np.arange(len(index))))
    assert not table.is_loaded.any()
    cache = RecordCache(RecordReader(chain, table, find_delta_decoder), table, PAGE)
    content = [bytes(cache.get(record)) for record in records.tolist()]  # payload digests vouch for these
    table.load_digests(records)
    assert table.is_loaded.all()
    for record, data in zip(records.tolist(), content, strict=True):
        first = int(table.first_slots[record])
        found = digest_blocks(chain.keys.block, memoryview(data), PAGE)
        assert np.array_equal(found, table.digests[first : first + len(found)])


def test_a_damaged_signature_costs_its_own_records_only() -> None:
    store = MemoryStore()
    repository, _, _ = make_chain(store)
    index = load_index(repository)
    table = SlotTable(repository, index)
    name = SIGNATURES + index.signatures[0]
    store.objects[name] = store.objects[name][:-1] + bytes([store.objects[name][-1] ^ 1])
    records, errors = table.add_entries(np.arange(len(index))), []
    table.load_digests(records, errors.append)
    assert [type(error) for error in errors] == [DigestMismatch]
    assert (table.is_loaded == (index.entries["signature"] != 0)).all()
    with pytest.raises(IntegrityError):
        table.load_digests(records)


def test_answers_agree_with_the_index(chain: Repository, index: LoadedIndex) -> None:
    table, links = SlotTable(chain, index), index.links
    order = np.random.default_rng(1).permutation(len(index))
    records = table.add_entries(order)
    table.add_sources(records)
    assert np.array_equal(table.depths_of(records), links.depths[order])
    assert np.array_equal(table.are_deltas(records), links.counts[order] > 0)
    assert np.array_equal(table.index_rows(records), index.entries[order])
    assert np.array_equal(table.count_present(records), index.entries["slots"][order])
    deltas, block_counts = table.count_sources(records)
    assert deltas.tolist() == records[links.counts[order] > 0].tolist()
    for delta, blocks in zip(deltas.tolist(), block_counts.tolist(), strict=True):
        entry = int(table.entries[delta])
        first, last = int(links.starts[entry]), int(links.starts[entry + 1])
        sources, counts = table.source_records(np.array([delta]))
        assert table.entries[sources].tolist() == links.entries[first:last].tolist()
        assert counts.tolist() == [last - first]
        assert table.describe_sources(delta) == (last - first, links.table_of(entry))
        firsts, lengths = table.source_slots(delta)
        assert lengths.sum() == blocks
        assert set(table.records_of(firsts).tolist()) == set(sources.tolist())
        assert table.find_present(delta) is None


def test_a_table_takes_the_memory_that_it_says() -> None:
    """5 bytes an index entry, 41 a record, and 16 a slot once digests were asked for."""
    repository, _, _ = make_chain()
    index = load_index(repository)
    table = SlotTable(repository, index)
    base = measure(table)
    assert base == 5 * len(index) + 16 * FIRST_SLOT
    table.add_entries(np.arange(len(index)))
    assert measure(table) - base == 41 * len(index)
    table.load_digests(np.arange(len(index)))
    assert measure(table) - base == 41 * len(index) + 16 * (table.slot_count - FIRST_SLOT)


def measure(table: SlotTable) -> int:
    return sum(each.nbytes for each in vars(table).values() if isinstance(each, np.ndarray))
