# SPDX-License-Identifier: Apache-2.0
"""Run the real program many times over, each time with the peak of its memory, at the price of a fork.

A small process has the program's modules loaded and forks for each command: so the peak is the command's own, and hundreds of
commands take seconds. Run as a program, this is that process: it reads a command a line from its input, as JSON, and answers
with a line each.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.program import environment

_LOADED = ("app", "backup", "cat", "check", "diff", "prune", "repair", "restore", "snapshots", "verify")


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """What a finished command said, and what it took."""

    code: int
    out: str
    err: str
    peak_bytes: int
    """Of memory in use at any time, libraries included, which are some 60 MiB."""
    seconds: float

    @property
    def error(self) -> str:
        """The one line that a command that fails ends with; empty for one that says nothing."""
        lines = [line for line in self.err.splitlines() if line.startswith("deltaimg: ") and "warning:" not in line]
        assert len(lines) <= 1, self.err
        return lines[0] if lines else ""


class MeasuredProgram:
    """The process that forks."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(
        self,
        *arguments: object,
        repo: Path | None,
        settings: dict[str, str] | None = None,
        most_bytes: int | None = None,
        timeout_s: int = 60,
    ) -> MeasuredRun:
        """Run a command.

        Args:
            settings: of the environment. most_bytes: of address space that the command may have besides what is loaded.
            timeout_s: of processor time, after which it is killed.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        wanted = {
            "arguments": [*map(str, arguments)],
            "settings": ({"DELTAIMG_REPO": str(repo)} if repo else {}) | (settings or {}),
            "most_bytes": most_bytes,
            "timeout_s": timeout_s,
        }
        self._process.stdin.write(json.dumps(wanted) + "\n")
        self._process.stdin.flush()
        run = MeasuredRun(**json.loads(self._process.stdout.readline()))
        assert "Traceback" not in run.err, run.err
        assert "internal error" not in run.err, run.err
        assert run.code >= 0, f"killed by signal {-run.code}: {arguments}"
        return run


@contextmanager
def measured_program(*flags: str, settings: dict[str, str] | None = None) -> Iterator[MeasuredProgram]:
    """Start the process that forks, for as long as it is wanted; Python itself gets `flags`, its environment `settings`."""
    with subprocess.Popen(
        [sys.executable, *flags, "-m", "tests.support.measured"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, encoding="ascii", env=environment(None) | (settings or {}), cwd=Path(__file__).parents[2],
    ) as process:  # fmt: skip
        yield MeasuredProgram(process)
        process.communicate("")


def _serve() -> None:
    """Fork for each line of the input."""
    import importlib

    for name in _LOADED:
        importlib.import_module(f"deltaimg.cli.{name}")
    for module in ("deltaimg.kernels", "deltaimg.engine.repair.run", "deltaimg.engine.restore.run"):
        importlib.import_module(module)
    for line in sys.stdin:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            print(json.dumps(_run_forked(json.loads(line), out, err)), flush=True)


def _run_forked(wanted: dict[str, Any], out: Any, err: Any) -> dict[str, Any]:
    started = time.monotonic()
    child = os.fork()
    if not child:
        _become(wanted, out, err)
    _, status, usage = os.wait4(child, 0)
    said = []
    for file in (out, err):
        file.seek(0)
        said.append(file.read().decode(errors="replace"))
    return {
        "code": os.waitstatus_to_exitcode(status),
        "out": said[0],
        "err": said[1],
        "peak_bytes": usage.ru_maxrss * 1024,
        "seconds": time.monotonic() - started,
    }


def _become(wanted: dict[str, Any], out: Any, err: Any) -> None:
    """Be the program, until it ends."""
    from deltaimg.cli import main

    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    os.environ.update(wanted["settings"])
    resource.setrlimit(resource.RLIMIT_CPU, (wanted["timeout_s"], wanted["timeout_s"]))
    if wanted["most_bytes"] is not None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + wanted["most_bytes"],) * 2)
    sys.argv = ["deltaimg", *wanted["arguments"]]
    try:
        main()
    finally:
        os._exit(99)


if __name__ == "__main__":
    _serve()
