# SPDX-License-Identifier: Apache-2.0
"""One measurement with all its runs, and the CSV that holds them.

Always  a line is a peer at one task of one backup: all runs' values, not only their median.
"""

from __future__ import annotations

import csv
import dataclasses
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from measuring.process import Sample


@dataclass(slots=True)
class Measurement:
    """What a peer needed for one task: `backup`, `restore`, or one of deltaimg's own rows.

    `stored_bytes` is what the repository grew by; `allocated_bytes` and `equal` are of restored images.
    `value` is, of a backup, how many bytes of the image it encoded, where it says so; and the result of rows that
    measure something else. `note` says what, or why there is no figure.
    """

    guest: str
    task: str
    row: str
    number: int
    peer: str
    version: str = ""
    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    sync_s: list[float] = field(default_factory=list)
    load: list[float] = field(default_factory=list)
    peak_bytes: list[int] = field(default_factory=list)
    stored_bytes: list[int] = field(default_factory=list)
    allocated_bytes: list[int] = field(default_factory=list)
    equal: list[int] = field(default_factory=list)
    read_bytes: list[int] = field(default_factory=list)
    value: list[float] = field(default_factory=list)
    command: str = ""
    note: str = ""

    def add(self, sample: Sample) -> None:
        """Count one run."""
        self.wall_s.append(round(sample.wall_s, 4))
        self.cpu_s.append(round(sample.cpu_s, 4))
        self.sync_s.append(round(sample.sync_s, 4))
        self.load.append(round(sample.load, 2))
        self.peak_bytes.append(sample.peak_bytes)
        self.read_bytes.append(sample.read_bytes)

    @property
    def is_measured(self) -> bool:
        """Whether there is at least one run."""
        return bool(self.wall_s or self.value)

    def median(self, column: str) -> float:
        """The median of one column's runs; NaN when there is none."""
        values: Sequence[float] = getattr(self, column)
        return statistics.median(values) if values else float("nan")


_LISTS = tuple(f.name for f in dataclasses.fields(Measurement) if "list" in str(f.type))
_INTEGERS = ("peak_bytes", "stored_bytes", "allocated_bytes", "equal", "read_bytes")
_COLUMNS = {"number": "night"}  # as the committed results name it
_MEDIANS = ("wall_s", "cpu_s", "peak_bytes", "stored_bytes")


def write_csv(path: Path, measurements: Iterable[Measurement]) -> None:
    """Write all measurements: plain columns, medians, then every list with its values joined by `;`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = [f.name for f in dataclasses.fields(Measurement) if f.name not in _LISTS]
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            [*(_COLUMNS.get(name, name) for name in plain), *(f"{name}_median" for name in _MEDIANS), "runs", *_LISTS]
        )
        for one in measurements:
            medians = [f"{one.median(name):.6g}" for name in _MEDIANS]
            lists = [";".join(map(str, getattr(one, name))) for name in _LISTS]
            writer.writerow([*(getattr(one, name) for name in plain), *medians, len(one.wall_s), *lists])


def merge(before: Iterable[Measurement], now: Iterable[Measurement]) -> list[Measurement]:
    """All measurements of both; where both have one of the same thing, that of `now`, in the place of the old one."""
    found = {(one.task, one.row, one.number, one.peer): one for one in before}
    found.update({(one.task, one.row, one.number, one.peer): one for one in now})
    return list(found.values())


def read_csv(path: Path) -> list[Measurement]:
    """Read what `write_csv` wrote."""
    found = []
    with path.open(newline="") as file:
        for line in csv.DictReader(file):
            one = Measurement(line["guest"], line["task"], line["row"], int(line["night"]), line["peer"])
            one.version, one.command, one.note = line["version"], line["command"], line["note"]
            for name in _LISTS:
                kind = int if name in _INTEGERS else float
                setattr(one, name, [kind(value) for value in (line.get(name) or "").split(";") if value])
            found.append(one)
    return found
