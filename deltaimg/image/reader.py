# SPDX-License-Identifier: Apache-2.0
"""What reads an open file or device at any offset, on any thread."""

from __future__ import annotations

from typing import Protocol

from deltaimg.arrays import Ranges


class ReadFailure(Exception):
    """The system could not read at byte `offset`; what comes before it is in the buffer."""

    def __init__(self, offset: int, error_number: int) -> None:
        super().__init__(offset, error_number)
        self.offset, self.error_number = offset, error_number


class SourceFailure(Exception):
    """What the image is read through failed as a whole; in words that follow the image's name."""

    def __init__(self, problem: str, hint: str | None = None) -> None:
        super().__init__(problem, hint)
        self.problem, self.hint = problem, hint


class Reader(Protocol):
    """Any thread may use it. Every method may raise ReadFailure, and where it is no file or device SourceFailure."""

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill `buffer` from `offset`; return how many bytes there were, fewer only at the end."""
        ...

    def reread(self, ranges: Ranges, out: memoryview) -> None:
        """Fill parts of `out` again with what was read before, as far as there still is something."""
        ...
