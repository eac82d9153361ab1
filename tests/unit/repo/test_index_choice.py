# SPDX-License-Identifier: Apache-2.0
"""Which place of a record the index finds, when it is stored in several."""

from __future__ import annotations

import numpy as np

from deltaimg.format.index import ENTRY, IndexObject, link_sources
from deltaimg.format.slot_runs import SLOT_RUN
from deltaimg.format.sources import SourceTable
from deltaimg.repo.index import LoadedIndex


def make_object(created_us: int, pack: str, records: dict[int, tuple[int, ...]]) -> IndexObject:
    """Return an index object of records of one slot each, by number, with the numbers of their sources."""
    entries = np.zeros(len(records), ENTRY)
    entries["id"] = np.array([[number] * 16 for number in records], np.uint8)
    entries["offset"], entries["slots"], entries["block_shift"] = 64, 1, 12
    tables = []
    for sources in records.values():
        runs = np.zeros(len(sources), SLOT_RUN)
        runs["count"] = 1
        ids = np.array([[source] * 16 for source in sources], np.uint8).reshape(-1, 16)
        tables.append(SourceTable(ids, np.ones(len(sources), np.uint16), runs) if sources else None)
    return IndexObject(created_us, (pack,), ("s",), entries, link_sources(tables))


def find(index: LoadedIndex, number: int) -> tuple[str, int]:
    """Return the pack in which a record is found, and its depth."""
    entry = int(index.find(np.full((1, 16), number, np.uint8))[0])
    return index.packs[int(index.entries["pack"][entry])], int(index.links.depths[entry])


def test_a_record_that_stands_alone_is_found_before_a_delta() -> None:
    index = LoadedIndex({"1": make_object(1, "old", {1: (), 2: ()}), "2": make_object(2, "new", {2: (1,)})})
    assert find(index, 2) == ("old", 0)


def test_of_two_deltas_the_newer_is_found() -> None:
    index = LoadedIndex({"1": make_object(1, "old", {1: (), 2: (1,)}), "2": make_object(2, "new", {2: (1,)})})
    assert find(index, 2) == ("new", 1)


def test_a_place_in_a_pack_pending_deletion_is_found_last() -> None:
    objects = {"1": make_object(1, "old", {1: (), 2: ()}), "2": make_object(2, "new", {2: (1,)})}
    assert find(LoadedIndex(dict(objects), pending={"old"}), 2) == ("new", 1)
    assert find(LoadedIndex(dict(objects), pending={"old", "new"}), 1) == ("old", 0)


def test_a_place_that_an_index_object_pending_deletion_names_is_pending() -> None:
    objects = {"1": make_object(1, "old", {1: ()}), "2": make_object(2, "new", {1: ()})}
    assert find(LoadedIndex(dict(objects), pending={"2"}), 1) == ("old", 0)
    assert LoadedIndex(dict(objects), pending={"2"}).is_pending.tolist() == [False, True]


def test_places_are_chosen_so_that_no_record_needs_itself() -> None:
    """Two runs that did not know of each other: 2 is stored against 1, then 3 against 2, then 2 once more, against 3."""
    index = LoadedIndex({"1": make_object(1, "old", {1: (), 2: (1,), 3: (2,)}), "2": make_object(2, "new", {2: (3,)})})
    assert find(index, 2) == ("old", 1)
    assert find(index, 3) == ("old", 2)


def test_a_place_whose_sources_are_gone_is_passed_over() -> None:
    index = LoadedIndex({"1": make_object(1, "old", {1: (), 2: (1,)}), "2": make_object(2, "new", {2: (9,)})})
    assert find(index, 2) == ("old", 1)


def test_what_is_rewritten_for_some_entries_names_the_same_sources() -> None:
    index = LoadedIndex({"1": make_object(1, "old", {1: (), 2: (1,), 3: (2, 1)})})
    links = index.links.extract(np.array([0, 2]))
    assert links.link_counts.tolist() == [0, 2]
    assert links.ids[links.places][:, 0].tolist() == [2, 1]
    assert len(links.runs) == 2


def test_records_whose_ids_begin_alike_are_told_apart() -> None:
    made = make_object(1, "old", dict.fromkeys(range(1, 6), ()))
    made.entries["id"][1:4, :8] = made.entries["id"][0, :8]
    ids = made.entries["id"].copy()
    again = make_object(2, "new", {3: ()})
    again.entries["id"] = ids[2]
    index = LoadedIndex({"1": made, "2": again})
    assert index.find(ids).tolist() == [0, 1, 5, 3, 4]
    unknown = np.concatenate((ids[:1, :8], np.full((1, 8), 99, np.uint8)), axis=1)
    assert index.find(np.concatenate((unknown, ids[3:4]))).tolist() == [-1, 3]


def test_an_empty_index_has_nothing() -> None:
    assert LoadedIndex({}).find(np.zeros((2, 16), np.uint8)).tolist() == [-1, -1]
