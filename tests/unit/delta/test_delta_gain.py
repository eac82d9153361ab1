# SPDX-License-Identifier: Apache-2.0
"""Deltas are tried until a degree of similarity turns out to gain nothing, and now and then afterwards."""

from __future__ import annotations

from deltaimg.delta.delta_gain import DeltaGainEstimate


def add_results(estimate: DeltaGainEstimate, share: float, gain: float, count: int) -> None:
    for _ in range(count):
        estimate.add_result(share, gain)


def test_the_first_records_are_always_tried() -> None:
    estimate = DeltaGainEstimate()
    add_results(estimate, 0.5, 0.0, 7)
    assert all(estimate.is_worth_trying(0.5) for _ in range(100))


def test_what_gains_nothing_is_tried_once_in_sixteen() -> None:
    estimate = DeltaGainEstimate()
    add_results(estimate, 0.5, 0.0, 8)
    assert [estimate.is_worth_trying(0.5) for _ in range(32)] == [number % 16 == 15 for number in range(32)]


def test_what_gains_a_twentieth_is_tried_on() -> None:
    estimate = DeltaGainEstimate()
    add_results(estimate, 0.5, 0.06, 100)
    assert all(estimate.is_worth_trying(0.5) for _ in range(100))


def test_gains_that_come_later_count() -> None:
    estimate = DeltaGainEstimate()
    add_results(estimate, 0.5, 0.0, 8)
    add_results(estimate, 0.5, 0.9, 1)
    assert all(estimate.is_worth_trying(0.5) for _ in range(100))


def test_grades_do_not_influence_each_other() -> None:
    estimate = DeltaGainEstimate()
    add_results(estimate, 0.59, 0.0, 8)
    assert not estimate.is_worth_trying(0.51)
    assert estimate.is_worth_trying(0.49)
    assert estimate.is_worth_trying(0.61)
    assert estimate.is_worth_trying(1.0)
