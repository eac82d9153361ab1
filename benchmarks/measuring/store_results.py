# SPDX-License-Identifier: Apache-2.0
"""The files that a campaign's results go to: a CSV of measurements, and beside it what a reader needs to judge them.

Always  what was measured earlier on the same day, and not again since, stays; what failed does not. A figure names the
        command that it came from.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from measuring.results import Measurement, merge, read_csv, write_csv


class ResultFile:
    """The results of one guest on one day."""

    def __init__(self, folder: Path, machine: dict[str, Any], anonymous: Mapping[str, str]) -> None:
        """`anonymous` says what this machine's paths are called in what will be committed."""
        self._stem = folder / f"{machine['date']}-{machine['guest']}"
        self._machine = machine
        self._names = {**anonymous, sys.executable: "python"}
        self.found: list[Measurement] = []
        if self._csv.exists():
            self.found = [one for one in read_csv(self._csv) if one.is_measured or not one.note.startswith("failed")]
            before = json.loads(self._json.read_text())["command"].split("; ")
            machine["command"] = "; ".join(dict.fromkeys([*before, machine["command"]]))

    def add(self, measurements: Sequence[Measurement]) -> None:
        """Take in what a step has found, and write everything."""
        for one in measurements:
            for path, name in self._names.items():
                one.command = one.command.replace(path, name)
                one.note = one.note.replace(path, name)
        self.found = merge(self.found, measurements)
        write_csv(self._csv, self.found)
        self._json.write_text(json.dumps(self._machine, indent=1) + "\n")

    @property
    def _csv(self) -> Path:
        return self._stem.with_suffix(".csv")

    @property
    def _json(self) -> Path:
        return self._stem.with_suffix(".json")


def describe_machine(guest: str, runs: int, command: str) -> dict[str, Any]:
    """Say when and where this is measured."""
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = [line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name")]
    return {
        "date": date.today().isoformat(),
        "guest": guest,
        "runs": runs,
        "cpu": cpu[0] if cpu else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "command": command,
        "missing": [],
        "nights": [],
    }
