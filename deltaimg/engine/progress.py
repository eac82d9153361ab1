# SPDX-License-Identifier: Apache-2.0
"""How far a verb has come: what the engine tells and whoever watches may show."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told from the engine's main thread only."""

    def start(self, task: str, total_bytes: int | None) -> None:
        """A stage begins; None when nobody knows how much there is, as with a stream."""
        ...

    def advance(self, done_bytes: int) -> None:
        """So many more bytes of the image are dealt with."""
        ...

    def warn(self, message: str) -> None:
        """Something went wrong that does not stop the run."""
        ...


class NoProgress:
    """Nobody watches."""

    def start(self, task: str, total_bytes: int | None) -> None: ...

    def advance(self, done_bytes: int) -> None: ...

    def warn(self, message: str) -> None: ...
