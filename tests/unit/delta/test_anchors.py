# SPDX-License-Identifier: Apache-2.0
"""Anchors: a table within its budget, denser the less content there is; equal content has equal names wherever it is."""

from __future__ import annotations

import random

import numpy as np
import pytest

from deltaimg.delta.anchors import Anchors, plan_table
from deltaimg.kernels.layout import BUCKET_PLACES
from deltaimg.model import GIB, MIB, TIB

NOISE = random.Random(61).randbytes(2 * MIB)
BUCKET_BYTES = 64


def make_anchors(budget_bytes: int = MIB) -> Anchors:
    buckets, shift = plan_table(len(NOISE), budget_bytes)
    return Anchors(np.zeros(buckets * BUCKET_PLACES, np.uint64), shift)


@pytest.mark.parametrize("content_bytes", [0, MIB, GIB, TIB, 2**50])
@pytest.mark.parametrize("budget_bytes", [0, 64, MIB, 256 * MIB])
def test_a_table_stays_within_its_budget(content_bytes: int, budget_bytes: int) -> None:
    buckets, shift = plan_table(content_bytes, budget_bytes)
    assert 1 <= buckets <= max(1, budget_bytes // BUCKET_BYTES)
    assert 16 <= shift <= 25


def test_more_content_has_sparser_anchors() -> None:
    shifts = [plan_table(size, 16 * MIB)[1] for size in (MIB, GIB, 16 * GIB, TIB)]
    assert shifts == sorted(shifts, reverse=True)
    assert shifts[0] == 25
    assert shifts[-1] == 16


def test_equal_content_has_equal_names_at_any_offset() -> None:
    anchors = make_anchors()
    names, positions = anchors.collect(NOISE[:MIB])
    moved, moved_positions = anchors.collect(b"in front of it" + NOISE[:MIB])
    assert len(names) > 1000
    shared = set(names.tolist()) & set(moved.tolist())
    assert len(shared) >= len(set(names.tolist())) - 2, "only what the beginning touches may differ"
    places = dict(zip(moved.tolist(), moved_positions.tolist(), strict=True))
    pairs = zip(names.tolist(), positions.tolist(), strict=True)
    shifts = {places[name] - position for name, position in pairs if name in places}
    assert len("in front of it") in shifts


def test_labels_are_found_again_and_label_0_is_none() -> None:
    anchors = make_anchors()
    names, positions = anchors.collect(NOISE)
    labels = (1 + positions // 4096).astype(np.uint32)
    labels[::2] = 0
    anchors.remember(names, labels)
    found = anchors.find(names)
    assert (found[labels > 0] == labels[labels > 0]).mean() > 0.9, "few buckets overflow"
    others, _ = anchors.collect(random.Random(62).randbytes(MIB))
    assert not anchors.find(others[~np.isin(others, names)]).any()
