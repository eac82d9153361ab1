# SPDX-License-Identifier: Apache-2.0
"""The coding of runs of slots: one for each list of runs, and nothing that is none of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaimg.format.limits import MAX_RECORD_SLOTS
from deltaimg.format.slot_runs import SLOT_RUN, build_runs, find_runs_problem, parse_runs

record_runs = st.lists(
    st.tuples(st.integers(0, 40) | st.integers(0, 700), st.integers(1, 8) | st.integers(1, 600)), min_size=1, max_size=3
)
"""Gaps and slots of the runs of one record."""


def lay_out(records):
    """Return the runs of records of which gaps and slots are known, and how many each has."""
    runs = []
    for steps in records:
        at = 0
        for gap, count in steps:
            runs.append((at + gap, count))
            at += gap + count
    return np.array([len(steps) for steps in records], np.uint16), np.array(runs, SLOT_RUN)


def parse(data, record_count):
    run_counts, runs, rest = parse_runs(memoryview(data), record_count)
    return run_counts.tolist(), runs.tolist(), bytes(rest)


@given(st.lists(record_runs, min_size=1, max_size=5), st.binary(max_size=3))
def test_runs_are_read_as_written_with_what_follows_them(records, rest):
    run_counts, runs = lay_out(records)
    data = build_runs(run_counts, runs) + rest
    assert parse(data, len(records)) == (run_counts.tolist(), runs.tolist(), rest)


@given(
    st.binary(max_size=40) | st.lists(st.sampled_from([0, 1, 3, 124, 127, 128, 255]), max_size=20).map(bytes),
    st.integers(1, 3),
)
def test_whatever_can_be_read_is_written_so(data, record_count):
    try:
        run_counts, runs, rest = parse_runs(memoryview(data), record_count)
    except ValueError:
        return
    assert build_runs(run_counts, runs) + bytes(rest) == data
    assert len(run_counts) == record_count
    assert find_runs_problem(run_counts, runs) is None


def test_the_document_says_every_bit():
    """Slots 2, 3 and 64 to 73 of a record, and slot 0 of a second one."""
    run_counts, runs = np.array([2, 1], np.uint16), np.array([(2, 2), (64, 10), (0, 1)], SLOT_RUN)
    tokens = bytes([2 << 2 | 1, 128 | 31 << 2 | 3, 128])
    assert build_runs(run_counts, runs) == b"\3\0" + tokens + (60 - 31).to_bytes(2, "little") + (10 - 4).to_bytes(
        2, "little"
    )


LAST = b"\x80"
REFUSALS = {
    "nothing": (b"", 1, "more runs of slots than there is room for"),
    "fewer tokens than it says": (b"\2\0" + LAST, 1, "more runs of slots than there is room for"),
    "more runs than slots": (b"\1\x10" + bytes(4096) + LAST, 1, "more runs of slots than there is room for"),
    "runs of no record": (b"\0\0", 0, "other than 0 records"),
    "no last run": (b"\1\0\0", 1, "other than 1 records"),
    "runs of more records": (b"\2\0" + LAST * 2, 1, "other than 1 records"),
    "runs of fewer records": (b"\1\0" + LAST, 2, "other than 2 records"),
    "a run after the last": (b"\2\0" + LAST + b"\0", 1, "other than 1 records"),
    "a long gap without its word": (b"\1\0\xfc\0", 1, "longer runs of slots than there is room for"),
    "a long run without its word": (b"\1\0\x83\0", 1, "longer runs of slots than there is room for"),
    "a gap that leaves any record": (b"\1\0\xfc" + (4096 - 31).to_bytes(2, "little"), 1, "outside any record"),
    "a run that leaves any record": (b"\1\0\x83" + (4097 - 4).to_bytes(2, "little"), 1, "outside any record"),
    "runs that together do": (b"\2\0\x03\x84" + (4096 - 4).to_bytes(2, "little"), 1, "outside any record"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_no_list_of_runs_is_refused(name):
    data, record_count, problem = REFUSALS[name]
    with pytest.raises(ValueError, match=problem):
        parse_runs(memoryview(data), record_count)


def test_the_largest_record_is_one_run():
    run_counts, runs = np.ones(1, np.uint16), np.array([(0, MAX_RECORD_SLOTS)], SLOT_RUN)
    assert parse(build_runs(run_counts, runs), 1) == ([1], runs.tolist(), b"")
    every_other = np.array([(slot, 1) for slot in range(0, MAX_RECORD_SLOTS, 2)], SLOT_RUN)
    data = build_runs(np.array([len(every_other)], np.uint16), every_other)
    assert len(data) == 2 + len(every_other)
    assert parse(data, 1) == ([len(every_other)], every_other.tolist(), b"")
