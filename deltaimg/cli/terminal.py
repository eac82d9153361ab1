# SPDX-License-Identifier: Apache-2.0
"""How results, progress and errors look: tables and a bar for people, lines for logs, JSON for programs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

from deltaimg.cli.logged_warnings import LoggedWarnings
from deltaimg.cli.output import losing_output
from deltaimg.errors import DeltaimgError

if TYPE_CHECKING:
    from datetime import datetime

    from rich.progress import Progress as Bar

_LINE_EVERY_S = 10.0


def format_bytes(count: float) -> str:
    """Return a size as people read it: `512 B`, `1.4 MiB`, `310 GiB`."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if abs(size) < 1000 or unit == "PiB":
            return f"{size:.0f} {unit}" if unit == "B" or abs(size) >= 99.95 else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError


def format_seconds(seconds: float) -> str:
    """Return a duration as people read it: `0.4 s`, `3 min 20 s`, `2 h 5 min`."""
    if round(seconds) < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def format_count(count: int, noun: str) -> str:
    """Return `1 record`, `2 records`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def format_moment(moment: datetime, *, to_minutes: bool = False) -> str:
    """Return a time in the local zone, to the second or the minute."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M" if to_minutes else "%Y-%m-%d %H:%M:%S")


def format_line(text: str) -> str:
    """Return text on one line, nothing in it that a terminal would obey: a path may hold any byte."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def print_error(error: DeltaimgError, *, as_json: bool) -> None:
    """Print an error and its hint on the standard error; for programs, an object on the standard output as well."""
    print(f"deltaimg: {format_line(str(error))}", file=sys.stderr)
    if error.hint:
        print(f"  hint: {format_line(error.hint)}", file=sys.stderr)
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
    """Where one command prints to; also the engine's `Progress`. A context manager that takes the bar away at the end.

    Results are what a command is asked for. Remarks only say what became of it, and `-q` leaves them out.
    """

    stage: ClassVar[str | None] = None
    """What the command is doing, for messages about what it met."""

    def __init__(self, *, as_json: bool = False, is_quiet: bool = False, is_verbose: bool = False) -> None:
        self.as_json, self.is_quiet, self.is_verbose = as_json, is_quiet, is_verbose
        self._is_live = sys.stderr.isatty() and not is_quiet
        self._bar: Bar | None = None
        self._task_id: Any = None
        self._task = ""
        self._total: int | None = None
        self._done = 0
        self._started = time.monotonic()
        self._last_line: float | None = None
        self._logged = LoggedWarnings(self.warn)

    def __enter__(self) -> Terminal:
        self._logged.attach()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._logged.detach()
        if self._bar is not None:
            self._bar.stop()

    # -- results and remarks -----------------------------------------------------------------------------------------

    def print_json(self, value: object) -> None:
        """Print one JSON value on a line of its own."""
        self._write(json.dumps(value, default=str))

    def print(self, text: str = "") -> None:
        """Print a line of a result for people, unless they asked for JSON."""
        if not self.as_json:
            self._write(format_line(text))

    def remark(self, text: str) -> None:
        """Print what became of the command, unless JSON or quiet was asked for; it is lost where it cannot be written."""
        if not self.is_quiet and not self.as_json:
            with losing_output():
                self.print(text)

    def print_table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table; a column whose name begins with `>` is set flush right. Nothing is ever cut off."""
        names = [column.lstrip(">") for column in columns]
        widths = [max(len(row[place]) for row in [names, *rows]) for place in range(len(columns))]
        for row in [names, *rows]:
            cells = (
                f"{cell:>{width}}" if column.startswith(">") else f"{cell:<{width}}"
                for cell, width, column in zip(row, widths, columns, strict=True)
            )
            self.print("  ".join(cells).rstrip())

    def print_pairs(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Print names and values, one pair a line, values aligned."""
        width = max(len(name) for name, _ in pairs)
        for name, value in pairs:
            self.print(f"{name:<{width}}  {value}")

    def _write(self, line: str) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        print(line)

    # -- progress ----------------------------------------------------------------------------------------------------

    def start(self, task: str, total_bytes: int | None) -> None:
        self._task, self._total, self._done = task, total_bytes, 0
        Terminal.stage = task
        self._started, self._last_line = time.monotonic(), None
        if self.is_quiet:
            return
        if self._is_live:
            self._show_bar()
        elif total_bytes:
            self._print_line()

    def advance(self, done_bytes: int) -> None:
        self._done += done_bytes
        if self._total is not None:
            # Small holes are read along with the data around them, and are no part of the total.
            self._done = min(self._done, self._total)
        if self._bar is not None:
            self._bar.update(self._task_id, completed=self._done)
        elif not self.is_quiet and (self._last_line is None or time.monotonic() - self._last_line >= _LINE_EVERY_S):
            self._print_line()

    def warn(self, message: str) -> None:
        line = f"deltaimg: warning: {format_line(message)}"
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr)

    def _show_bar(self) -> None:
        if self._bar is None:
            bar = _make_bar()
            try:
                bar.start()
            except RuntimeError:
                # No thread can be started that would redraw it.
                self._is_live = False
                self._print_line()
                return
            self._bar = bar
        elif self._task_id is not None:
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
                parts.append(f"{format_seconds((self._total - self._done) / rate)} left")
        print(", ".join(parts), file=sys.stderr, flush=True)


def _make_bar() -> Bar:
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

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
