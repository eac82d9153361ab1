# SPDX-License-Identifier: Apache-2.0
"""The progress of a verb: events that the engine reports and a user interface may show.

Stages nest: while an inner stage runs, the outer one pauses, and continues when the inner one ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """Called from the engine's main thread only."""

    def begin(self, task: str, total_bytes: int | None) -> None:
        """A stage begins, inside of the one that is running.

        Args:
            task: what is done, as in "backing up"; it may hold names from a repository.
            total_bytes: how much there is to do; None when that is not known, as with a stream.
        """
        ...

    def advance(self, done_bytes: int) -> None:
        """This many more bytes of the innermost stage are done."""
        ...

    def end(self) -> None:
        """The innermost stage ends."""
        ...

    def warn(self, message: str) -> None:
        """Something went wrong that does not stop the run."""
        ...


class NoProgress:
    """Shows nothing."""

    def begin(self, task: str, total_bytes: int | None) -> None: ...

    def advance(self, done_bytes: int) -> None: ...

    def end(self) -> None: ...

    def warn(self, message: str) -> None: ...


@contextmanager
def stage(progress: Progress, task: str, total_bytes: int | None = None) -> Iterator[None]:
    """Report the block as a stage."""
    progress.begin(task, total_bytes)
    try:
        yield
    finally:
        progress.end()
