# SPDX-License-Identifier: Apache-2.0
"""Which slots cut entries have, against sets of numbers."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from deltaimg.format.cut_entries import CutEntries
from deltaimg.repo.cut_slots import CutSlots
from tests.property.format_strategies import kept_runs

SLOTS = 12


@st.composite
def objects(draw: st.DrawFn) -> list[list[set[int]]]:
    """For each index object, the slots of its entries."""
    whole = set(range(SLOTS))
    kept = st.sets(st.integers(0, SLOTS - 1), min_size=1, max_size=SLOTS - 1)
    return draw(st.lists(st.lists(st.just(whole) | kept, max_size=4), max_size=3))


def as_cuts(entries: list[set[int]]) -> CutEntries:
    cut = [number for number, slots in enumerate(entries) if len(slots) < SLOTS]
    runs = [as_runs(entries[number]) for number in cut]
    joined = np.array([run for each in runs for run in each], [("first_slot", "<u2"), ("count", "<u2")])
    return CutEntries(np.array(cut, np.uint32), np.array([len(each) for each in runs], np.uint16), joined)


def as_runs(slots: set[int]) -> list[tuple[int, int]]:
    firsts = [slot for slot in sorted(slots) if slot - 1 not in slots]
    ends = [slot + 1 for slot in sorted(slots) if slot + 1 not in slots]
    return [(first, end - first) for first, end in zip(firsts, ends, strict=True)]


def make(objects: list[list[set[int]]]) -> tuple[CutSlots, list[set[int]]]:
    firsts = np.cumsum([0, *(len(each) for each in objects)]).tolist()
    everything = [slots for each in objects for slots in each]
    parts = [(first, as_cuts(each)) for first, each in zip(firsts, objects, strict=False)]
    return CutSlots(parts, np.full(len(everything), SLOTS, np.uint16)), everything


@settings(deadline=None)
@given(objects(), st.lists(st.tuples(st.integers(0, 11), st.integers(0, SLOTS - 1), st.integers(1, SLOTS))))
def test_an_entry_has_the_slots_that_were_listed(objects, questions):
    cuts, everything = make(objects)
    asked = [(entry % len(everything), first, count) for entry, first, count in questions] if everything else []
    asked = [(entry, first, min(count, SLOTS - first)) for entry, first, count in asked]
    entries, firsts, counts = (np.array(column, np.int64) for column in zip(*asked, strict=True)) if asked else [
        np.empty(0, np.int64)
    ] * 3  # fmt: skip
    expected = [set(range(first, first + count)) <= everything[entry] for entry, first, count in asked]
    assert cuts.have(entries, firsts, counts).tolist() == expected
    assert cuts.is_cut(entries).tolist() == [len(everything[entry]) < SLOTS for entry, _, _ in asked]
    assert cuts.count(entries).tolist() == [len(everything[entry]) for entry, _, _ in asked]
    runs, run_counts = cuts.runs_of(entries)
    assert runs.tolist() == [run for entry, _, _ in asked for run in as_runs(everything[entry])]
    assert run_counts.tolist() == [len(as_runs(everything[entry])) for entry, _, _ in asked]


@settings(deadline=None)
@given(objects(), st.data())
def test_what_is_written_again_for_some_entries_says_the_same_slots(objects, data):
    cuts, everything = make(objects)
    numbers = st.integers(0, len(everything) - 1) if everything else st.nothing()
    chosen = sorted(data.draw(st.sets(numbers))) if everything else []
    found = cuts.extract(np.array(chosen, np.int64))
    expected = as_cuts([everything[entry] for entry in chosen])
    assert found.entries.tolist() == expected.entries.tolist()
    assert found.run_counts.tolist() == expected.run_counts.tolist()
    assert found.runs.tolist() == expected.runs.tolist()


@given(kept_runs(SLOTS))
def test_runs_that_a_strategy_draws_do_not_touch(runs):
    assert (np.diff(runs["first_slot"].astype(int)) > runs["count"][:-1]).all()
