# SPDX-License-Identifier: Apache-2.0
"""The map of changes: every byte counted in its cell, neighbours stay neighbours."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaimg.engine.inspect.change_map import cover_cells, lay_on_curve


@given(st.sets(st.integers(0, 300), max_size=20), st.integers(300, 1000), st.integers(1, 70))
def test_shares_are_those_of_a_count_byte_by_byte(bounds: set[int], size: int, cells: int) -> None:
    ordered = sorted(bounds)
    extents = np.array(list(zip(ordered[::2], ordered[1::2], strict=False)), np.int64).reshape(-1, 2)
    fine = np.zeros(size * cells)
    for start, end in extents.tolist():
        fine[start * cells : end * cells] = 1
    assert np.allclose(cover_cells(extents, size, cells), fine.reshape(cells, size).mean(axis=1))


def test_an_empty_image_has_no_changes() -> None:
    assert not cover_cells(np.empty((0, 2), np.int64), 0, 16).any()


@pytest.mark.parametrize("order", [1, 2, 5])
def test_the_curve_visits_each_point_once_and_steps_to_a_neighbour(order: int) -> None:
    square = lay_on_curve(np.arange(4**order, dtype=float), order)
    y, x = np.divmod(np.argsort(square.ravel()), 1 << order)
    assert sorted(square.ravel().tolist()) == list(range(4**order))
    assert (np.abs(np.diff(x)) + np.abs(np.diff(y)) == 1).all()
    assert (x[0], y[0]) == (0, 0)
    assert (x[-1], y[-1]) == ((1 << order) - 1, 0)
