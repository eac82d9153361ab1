# SPDX-License-Identifier: Apache-2.0
"""Whether a delta is worth trying, estimated from what records of the same similarity gained earlier in this run.

Content without similar content is not tried at all. Where some degree of similarity gained nothing, as in media files with
equal headers, only every 16th record of that degree is tried, in case the content changes.
"""

from __future__ import annotations

_GRADES = 10
"""Of similarity, each a tenth."""
_TRIALS = 8
"""Records of a grade that are tried before their gains count."""
_LEAST_GAIN = 0.05
_AGAIN_EVERY = 16


class DeltaGainEstimate:
    """The gains of earlier deltas by grade of similarity. Not thread-safe."""

    def __init__(self) -> None:
        self._trials = [0] * _GRADES
        self._skipped = [0] * _GRADES
        self._gains = [0.0] * _GRADES

    def is_worth_trying(self, share: float) -> bool:
        """Return whether to try a delta for a record of whose anchors `share` (0 to 1) are in stored content."""
        grade = _grade(share)
        if self._trials[grade] < _TRIALS or self._gains[grade] >= _LEAST_GAIN * self._trials[grade]:
            return True
        self._skipped[grade] += 1
        return self._skipped[grade] % _AGAIN_EVERY == 0

    def add_result(self, share: float, gain: float) -> None:
        """Record that a delta saved `gain` (0 to 1) of the literal's bytes."""
        grade = _grade(share)
        self._trials[grade] += 1
        self._gains[grade] += gain


def _grade(share: float) -> int:
    return min(_GRADES - 1, int(share * _GRADES))
