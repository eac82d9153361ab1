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


class SharedStage:
    """The progress of one of several jobs as a part of the stage around them, which counts the bytes of all.

    A stage of the job that has a total is not shown by itself: once it ends, the job's bytes are counted as done.
    """

    def __init__(self, progress: Progress, job_bytes: int) -> None:
        """Args: job_bytes: what the job counts for in the stage around it."""
        self._progress, self._job_bytes = progress, job_bytes
        self._totals: list[int | None] = []
        self._done_bytes = self._counted_bytes = 0

    def begin(self, task: str, total_bytes: int | None) -> None:
        """Begin a stage of the job."""
        self._totals.append(total_bytes)
        if total_bytes is None:
            self._progress.begin(task, None)

    def advance(self, done_bytes: int) -> None:
        """Count bytes of the innermost stage."""
        total_bytes = self._totals[-1]
        if total_bytes is None:
            self._progress.advance(done_bytes)
            return
        self._done_bytes += done_bytes
        self._count(self._job_bytes * min(self._done_bytes, total_bytes) // max(total_bytes, 1))

    def end(self) -> None:
        """End the innermost stage."""
        if self._totals.pop() is None:
            self._progress.end()
        else:
            self._count(self._job_bytes)

    def warn(self, message: str) -> None:
        """Pass a warning on."""
        self._progress.warn(message)

    def _count(self, bytes_until_now: int) -> None:
        self._progress.advance(bytes_until_now - self._counted_bytes)
        self._counted_bytes = bytes_until_now
