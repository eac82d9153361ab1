# SPDX-License-Identifier: Apache-2.0
"""How far a verb has come: what the engine reports and a user interface may show."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called from the engine's main thread only."""

    def start(self, task: str, total_bytes: int | None, done_bytes: int = 0) -> None:
        """A stage begins, or goes on where another interrupted it.

        Args:
            task: what is done, as in "backing up"; it may hold names from a repository.
            total_bytes: how much there is to do; None when nobody knows, as with a stream.
            done_bytes: how much of that is done already.
        """
        ...

    def advance(self, done_bytes: int) -> None:
        """So many more bytes are done."""
        ...

    def warn(self, message: str) -> None:
        """Something went wrong that does not stop the run."""
        ...


class NoProgress:
    """Shows nothing."""

    def start(self, task: str, total_bytes: int | None, done_bytes: int = 0) -> None: ...

    def advance(self, done_bytes: int) -> None: ...

    def warn(self, message: str) -> None: ...
