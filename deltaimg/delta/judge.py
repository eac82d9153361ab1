# SPDX-License-Identifier: Apache-2.0
"""Is it worth trying a delta? Learnt over the run, from what records with as much in common gained.

Content that resembles nothing is not tried at all; where similarity of one degree turned out to gain nothing, as in media
files with like headers, it is tried now and then only.
"""

from __future__ import annotations

_GRADES = 10
_TRIALS = 8
_LEAST_GAIN = 0.05
_AGAIN_EVERY = 16


class DeltaJudge:
    """Remembers gains by grade of similarity."""

    def __init__(self) -> None:
        self._trials = [0] * _GRADES
        self._skipped = [0] * _GRADES
        self._gains = [0.0] * _GRADES

    def is_worth_trying(self, share: float) -> bool:
        """Tell for a record of whose anchors `share` (0 to 1) are known."""
        grade = _grade(share)
        if self._trials[grade] < _TRIALS or self._gains[grade] >= _LEAST_GAIN * self._trials[grade]:
            return True
        self._skipped[grade] += 1
        return self._skipped[grade] % _AGAIN_EVERY == 0

    def learn(self, share: float, gain: float) -> None:
        """Note that a delta saved `gain` (0 to 1) of the literal."""
        grade = _grade(share)
        self._trials[grade] += 1
        self._gains[grade] += gain


def _grade(share: float) -> int:
    return min(_GRADES - 1, int(share * _GRADES))
