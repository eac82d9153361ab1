# SPDX-License-Identifier: Apache-2.0
"""How far a command has come, on the standard error: a bar on a terminal, lines elsewhere; both in the same words and units.

A thread shows it, so that a stage that takes long without a word from the engine shows as well.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct, field

from deltaimg.describe.text import format_bytes, format_line, format_seconds
from deltaimg.errors import OutOfResources
from deltaimg.threads import start_thread

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

_LINE_EVERY_S = 10.0
_FIRST_LINE_S = 0.8
"""How long a stage lasts before a line shows it, so that short ones do not fill a log."""
_TICK_S = 0.2
_BAR_COLUMNS = 80
"""A narrower terminal gets the words without the bar."""


class Stage(Struct):
    """What is being done, how much of it there is, in bytes (None if unknown), and how much is done."""

    name: str
    total_bytes: int | None
    done_bytes: int = 0
    started_s: float = field(default_factory=lambda: time.monotonic())  # noqa: PLW0108  tests have a clock of their own
    note: Callable[[], str] = lambda: ""
    """What else is to be said, now, of a stage whose total is known."""

    @property
    def took_s(self) -> float:
        """Seconds since it began, without those of inner stages."""
        return time.monotonic() - self.started_s

    def pause(self, duration_s: float) -> None:
        """Leave the time that an inner stage took out of this one's rate."""
        self.started_s += duration_s

    def advance(self, done_bytes: int) -> None:
        """Count more bytes as done."""
        self.done_bytes += done_bytes
        if self.total_bytes is not None:
            # Small holes are read along with the data around them, and are no part of the total.
            self.done_bytes = min(self.done_bytes, self.total_bytes)

    def describe(self) -> str:
        """Return how far it has come: `1.2 GiB of 8.0 GiB, 310 MiB/s, 22 s left`."""
        parts = []
        if self.total_bytes:
            parts.append(f"{format_bytes(self.done_bytes)} of {format_bytes(self.total_bytes)}")
        elif self.done_bytes:
            parts.append(format_bytes(self.done_bytes))
        took_s = self.took_s
        if self.done_bytes and took_s >= _FIRST_LINE_S:
            rate = self.done_bytes / took_s
            parts.append(f"{format_bytes(rate)}/s")
            if self.total_bytes is not None and self.done_bytes < self.total_bytes:
                parts.append(f"{format_seconds((self.total_bytes - self.done_bytes) / rate)} left")
        elif took_s >= _FIRST_LINE_S:
            parts.append(f"{format_seconds(took_s)} so far")
        if self.total_bytes and (note := self.note()):
            parts.append(note)
        return ", ".join(parts)


class ProgressView(Protocol):
    """Shows stages. All but `tick` are called from the main thread."""

    def begin(self, stage: Stage) -> None:
        """Another stage has begun."""
        ...

    def tick(self) -> None:
        """Show the current stage if it is time; from any thread, often."""
        ...

    def print(self, line: str) -> None:
        """Print a message beside the progress."""
        ...

    def close(self) -> None:
        """Show nothing any more."""
        ...


def open_view() -> ProgressView:
    """Return the way to show progress that suits the standard error."""
    if os.isatty(2) and os.environ.get("TERM", "dumb") not in ("", "dumb", "unknown"):
        return _Bar()
    return _Lines()


class Ticker:
    """Calls a view often, from a thread of its own; if none can be started, `tick` has to be called instead."""

    def __init__(self, view: ProgressView) -> None:
        self._view = view
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        try:
            self._thread = start_thread(self._run, "deltaimg-progress")
        except OutOfResources:
            self._ended.set()

    def tick(self) -> None:
        """Call the view if no thread does."""
        if self._thread is None:
            self._view.tick()

    def stop(self) -> None:
        """Return once the thread has ended."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while not self._ended.wait(_TICK_S):
            self._view.tick()


class _Lines:
    """A line when a stage begins that lasts, and one every ten seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stage: Stage | None = None
        self._last_line_s: float | None = None
        self._is_announced = False

    def begin(self, stage: Stage) -> None:
        with self._lock:
            self._stage, self._is_announced = stage, False
            if stage.total_bytes and self._last_line_s is None:
                self._print_stage(stage)

    def tick(self) -> None:
        with self._lock:
            stage = self._stage
            if stage is None:
                return
            wait_s = _LINE_EVERY_S if self._is_announced else _FIRST_LINE_S
            since_s = self._last_line_s if self._is_announced and self._last_line_s is not None else stage.started_s
            if time.monotonic() - since_s >= wait_s:
                self._print_stage(stage)

    def print(self, line: str) -> None:
        with self._lock:
            print(line, file=sys.stderr)

    def close(self) -> None:
        with self._lock:
            self._stage = None

    def _print_stage(self, stage: Stage) -> None:
        self._is_announced, self._last_line_s = True, time.monotonic()
        state = stage.describe()
        print(format_line(f"{stage.name}: {state}" if state else stage.name), file=sys.stderr)


class _Bar:
    """One line that is drawn again and again; wide terminals have room for a bar in it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column

        self._stage: Stage | None = None
        self._task: TaskID | None = None
        console = Console(stderr=True)
        words = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True))
        state = TextColumn("{task.fields[state]}", markup=False, table_column=Column(no_wrap=True))
        bar = [BarColumn(bar_width=20)] if console.width >= _BAR_COLUMNS else []
        self._rich: RichProgress = Progress(words, *bar, state, console=console, transient=True, auto_refresh=False)
        self._rich.start()

    def begin(self, stage: Stage) -> None:
        if self._task is not None:
            self._rich.remove_task(self._task)
        self._stage = stage
        self._task = self._rich.add_task(format_line(stage.name), total=stage.total_bytes, state=stage.describe())
        self._rich.refresh()

    def tick(self) -> None:
        stage, task = self._stage, self._task
        if stage is not None and task is not None and task in self._rich.task_ids:
            self._rich.update(task, completed=stage.done_bytes, state=stage.describe(), refresh=True)

    def print(self, line: str) -> None:
        self._rich.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        self._stage = None
        self._rich.stop()
