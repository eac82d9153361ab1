# SPDX-License-Identifier: Apache-2.0
"""Where a command prints to: results and remarks as text or as JSON, progress, warnings and errors."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar

from deltaimg.cli.logged_warnings import LoggedWarnings
from deltaimg.cli.output import losing_output
from deltaimg.cli.progress import ProgressView, Stage, Ticker, open_view
from deltaimg.cli.tables import lay_out_pairs, lay_out_table
from deltaimg.describe.text import (
    find_line_width,
    format_bytes,
    format_count,
    format_line,
    format_moment,
    format_seconds,
)
from deltaimg.describe.traffic import describe_traffic, format_traffic
from deltaimg.errors import DeltaimgError, Interrupted

if TYPE_CHECKING:
    from deltaimg.api.results import Repository

__all__ = ["Terminal", "format_bytes", "format_count", "format_line", "format_moment", "format_seconds", "print_error"]


def print_error(error: DeltaimgError | Interrupted, *, as_json: bool) -> None:
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
            from deltaimg.describe.parts import describe_damage

            described["damage"] = describe_damage(damage)
        print(json.dumps(described))


class Terminal:
    """Where one command prints to; also the engine's `Progress`. A context manager that takes the bar away at the end.

    Results are what a command is called for. Remarks only summarise what it did, and `-q` omits them.
    """

    stage: ClassVar[str | None] = None
    """What the command is doing, for messages about what it met."""

    def __init__(self, *, as_json: bool = False, is_quiet: bool = False, is_verbose: bool = False) -> None:
        self.as_json, self.is_quiet, self.is_verbose = as_json, is_quiet, is_verbose
        self.note: Callable[[], str] = lambda: ""
        """Shown with the progress of stages whose total is known."""
        self._stages: list[Stage] = []
        self._view: ProgressView | None = None
        self._ticker: Ticker | None = None
        self._logged = LoggedWarnings(self.warn)
        self._repository: Repository | None = None

    def __enter__(self) -> Terminal:
        self._logged.attach()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._logged.detach()
        self._hide_progress()
        if self._repository is not None:
            if kind is None and self.is_verbose and (traffic := self._repository.objects.traffic) is not None:
                self.remark(format_traffic(traffic))
            self._repository.close()

    def watch(self, repository: Repository) -> None:
        """Show what went to a repository's store with the result, and close it at the end."""
        self._repository = repository

    # -- results and remarks -----------------------------------------------------------------------------------------

    def print_json(self, value: object) -> None:
        """Print one JSON value on a line of its own; an object that is a result has the `traffic` of the repository as well."""
        if isinstance(value, dict) and self._repository is not None and self._repository.objects.traffic is not None:
            value = value | {"traffic": describe_traffic(self._repository.objects.traffic)}
        self._write(json.dumps(value))

    def print(self, text: str = "") -> None:
        """Print a line of a result for people, unless they asked for JSON."""
        if not self.as_json:
            self._write(format_line(text))

    def draw(self, lines: Sequence[str]) -> None:
        """Print lines as they are, control characters included: none of them may come from a repository."""
        for line in lines:
            self._write(line)

    def remark(self, text: str) -> None:
        """Print a summary of the command, unless JSON or quiet was asked for; it is dropped if it cannot be written."""
        if not self.is_quiet and not self.as_json:
            with losing_output():
                self.print(text)

    def print_table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table; a column whose name begins with `>` is set flush right. Nothing is ever cut off."""
        for line in lay_out_table(columns, rows, find_line_width()):
            self.print(line)

    def print_pairs(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Print names and values, one pair a line, values aligned."""
        for line in lay_out_pairs(pairs, find_line_width()):
            self.print(line)

    def _write(self, line: str) -> None:
        self._hide_progress()
        print(line)

    # -- progress ----------------------------------------------------------------------------------------------------

    def begin(self, task: str, total_bytes: int | None) -> None:
        """Show a stage, inside the current one; as `Progress.begin`."""
        self._stages.append(Stage(task, total_bytes, note=self.note))
        self._show_stage()

    def advance(self, done_bytes: int) -> None:
        """Count bytes of the innermost stage as done."""
        self._stages[-1].advance(done_bytes)
        if self._ticker is not None:
            self._ticker.tick()

    def end(self) -> None:
        """End the innermost stage and show the one around it."""
        ended = self._stages.pop()
        if self._stages:
            self._stages[-1].pause(ended.took_s)
            self._show_stage()

    def _show_stage(self) -> None:
        """Show the innermost stage."""
        Terminal.stage = self._stages[-1].name
        if self.is_quiet:
            return
        if self._view is None or self._ticker is None:
            self._view = open_view()
            self._ticker = Ticker(self._view)
        self._view.begin(self._stages[-1])

    def warn(self, message: str) -> None:
        """Print a warning on the standard error, also with `-q` or `--json`."""
        line = f"deltaimg: warning: {format_line(message)}"
        if self._view is not None:
            self._view.print(line)
        else:
            print(line, file=sys.stderr)

    def _hide_progress(self) -> None:
        """Take the progress away, until the next stage."""
        if self._ticker is not None:
            self._ticker.stop()
        if self._view is not None:
            self._view.close()
        self._ticker = self._view = None
