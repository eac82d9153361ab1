# SPDX-License-Identifier: Apache-2.0
"""How results, progress and errors look: tables and a bar for people, lines for logs, JSON for programs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any

from deltaimg.errors import DeltaimgError

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

_LINE_EVERY_S = 10.0
_PLAIN_WIDTH = 200


def format_bytes(count: float) -> str:
    """Return a size as people read it: `512 B`, `1.4 MiB`, `310 GiB`."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if abs(size) < 1000 or unit == "PiB":
            return f"{size:.0f} {unit}" if unit == "B" or abs(size) >= 100 else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError


def format_seconds(seconds: float) -> str:
    """Return a duration as people read it: `0.4 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def format_moment(moment: datetime) -> str:
    """Return a time in the local zone, to the second."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def print_error(error: DeltaimgError, *, as_json: bool) -> None:
    """Print an error and its hint on the standard error; for programs, an object on the standard output as well."""
    print(f"deltaimg: {error}", file=sys.stderr)
    if error.hint:
        print(f"  hint: {error.hint}", file=sys.stderr)
    if as_json:
        described: dict[str, object] = {
            "error": type(error).__name__,
            "message": str(error),
            "hint": error.hint,
            "exit_code": error.exit_code,
            "retryable": error.retryable,
        }
        damage = getattr(error, "damage", None)
        if damage:
            described["damage"] = [{"start": start, "end": end, "reason": reason} for start, end, reason in damage]
        print(json.dumps(described))


class Terminal:
    """Where one command prints to; also the engine's `Progress`. A context manager that takes the bar away at the end."""

    def __init__(self, *, as_json: bool = False, is_quiet: bool = False, is_verbose: bool = False) -> None:
        self.as_json, self.is_quiet, self.is_verbose = as_json, is_quiet, is_verbose
        self._is_live = sys.stderr.isatty() and not is_quiet
        self._bar: Bar | None = None
        self._task_id: Any = None
        self._task = ""
        self._total: int | None = None
        self._done = 0
        self._started = self._last_line = time.monotonic()

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    # -- results -----------------------------------------------------------------------------------------------------

    def print_json(self, value: object) -> None:
        """Print one JSON value on a line of its own."""
        print(json.dumps(value, default=str))

    def print(self, text: str = "") -> None:
        """Print text for people, unless they asked for JSON or for quiet."""
        if not self.as_json and not self.is_quiet:
            print(text)

    def print_table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> None:
        """Print a table; a column whose name begins with `>` is set flush right."""
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", no_wrap=True)
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH).print(table)

    def print_pairs(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Print names and values, one pair a line, values aligned."""
        width = max(len(name) for name, _ in pairs)
        for name, value in pairs:
            self.print(f"{name:<{width}}  {value}")

    # -- progress ----------------------------------------------------------------------------------------------------

    def start(self, task: str, total_bytes: int | None) -> None:
        self._task, self._total, self._done = task, total_bytes, 0
        self._started = self._last_line = time.monotonic()
        if self._is_live:
            self._show_bar()
        elif not self.is_quiet and total_bytes is not None:
            self._print_line()

    def advance(self, done_bytes: int) -> None:
        self._done += done_bytes
        if self._bar is not None:
            self._bar.update(self._task_id, completed=self._done)
        elif not self.is_quiet and time.monotonic() - self._last_line >= _LINE_EVERY_S:
            self._print_line()

    def warn(self, message: str) -> None:
        if self._bar is not None:
            self._bar.console.print(f"deltaimg: warning: {message}", markup=False, highlight=False)
        else:
            print(f"deltaimg: warning: {message}", file=sys.stderr)

    def _show_bar(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        if self._bar is None:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                DownloadColumn(binary_units=True),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
        if self._task_id is not None:
            self._bar.remove_task(self._task_id)
        self._task_id = self._bar.add_task(self._task, total=self._total)

    def _print_line(self) -> None:
        now = time.monotonic()
        self._last_line = now
        took = now - self._started
        parts = [f"{self._task}: {format_bytes(self._done)}"]
        if self._total is not None:
            parts[0] += f" of {format_bytes(self._total)}"
        if took > 0 and self._done:
            rate = self._done / took
            parts.append(f"{format_bytes(rate)}/s")
            if self._total:
                parts.append(f"{format_seconds(max(0, self._total - self._done) / rate)} left")
        print(", ".join(parts), file=sys.stderr, flush=True)
