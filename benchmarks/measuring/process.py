# SPDX-License-Identifier: Apache-2.0
"""Run a command and measure it: wall time, CPU time and peak memory of its whole tree of processes.

Always  CPU and memory come from wait4: all processes that were waited for are in it, memory is the largest one's.
        What the disk still has to write afterwards is timed apart (`sync_s`), so that nobody pays for a neighbour,
        and so that a command that syncs by itself can be told from one that does not. Bytes read are those of read
        calls, whatever cache they came from; what is mapped into memory is not among them.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_CHILD = Path(__file__).with_name("child.py")

# Programs in Python (deltaimg, borg) keep their bytecode, as where they are used: without it each start compiles them again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


class CommandError(RuntimeError):
    """A measured command ended with an error."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command line, the folder it runs in, and what it needs in its environment."""

    argv: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return shlex.join(self.argv)


@dataclass(frozen=True, slots=True)
class Sample:
    """What one run of a command cost."""

    wall_s: float
    cpu_s: float
    peak_bytes: int
    sync_s: float
    load: float
    output: str
    read_bytes: int = 0


def measure(command: Command) -> Sample:
    """Run a command once on a disk at rest.

    Raises:
        CommandError: it ended with anything but 0; the message holds the end of what it printed.
    """
    os.sync()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="measure-") as scratch:
        result, log = Path(scratch, "result.json"), Path(scratch, "log")
        launcher = [sys.executable, "-I", "-S", str(_CHILD), str(result), str(log), *command.argv]
        subprocess.run(launcher, cwd=command.folder, env={**os.environ, **command.environment}, check=True)
        started = time.monotonic()
        os.sync()
        sync_s = time.monotonic() - started
        cost = json.loads(result.read_text())
        output, errors = log.read_text(errors="replace"), Path(f"{log}.err").read_text(errors="replace")
    if cost["exit_code"] != 0:
        raise CommandError(f"{command}: exit {cost['exit_code']}\n{output[-1000:]}{errors[-2000:]}")
    return Sample(cost["wall_s"], cost["cpu_s"], cost["peak_bytes"], sync_s, load, output, cost["read_bytes"])


def add_samples(samples: Sequence[Sample]) -> Sample:
    """Return what commands cost that ran one after another; the peak is the largest one's."""
    return Sample(
        wall_s=sum(one.wall_s for one in samples),
        cpu_s=sum(one.cpu_s for one in samples),
        peak_bytes=max(one.peak_bytes for one in samples),
        sync_s=sum(one.sync_s for one in samples),
        load=samples[0].load,
        output="".join(one.output for one in samples),
        read_bytes=sum(one.read_bytes for one in samples),
    )
