#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write `docs/benchmarks.md` and its plots from the newest results of each guest.

    python benchmarks/report.py [--results DIR] [--docs DIR]

Writes  only what lies between the two marks of the document; text around them is kept. Without a document it makes one.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from functools import reduce
from itertools import product
from pathlib import Path
from typing import Any

from guest.days import rows_of
from measuring.results import Measurement, merge, read_csv
from measuring.tables import backup_table, markdown, restore_table, task_table, verdict_table
from measuring.verdicts import guest_verdicts
from measuring.year_verdicts import year_verdicts
from peers import USUAL_PEERS
from plots import draw_all
from summary import GUEST as SUMMARY_GUEST
from summary import draw_summary, summary_table

_CHECKOUT = Path(__file__).resolve().parent.parent
_SUMMARY_MARKS = "<!-- summary: generated from here -->", "<!-- summary: generated up to here -->"
_START, _END = "<!-- benchmarks: generated from here -->", "<!-- benchmarks: generated up to here -->"
_INTRODUCTION = """<!-- SPDX-License-Identifier: Apache-2.0 -->
# Benchmarks

Real guests over their days, deltaimg and its peers in the same run. How to repeat it is in
[benchmarks/README.md](../benchmarks/README.md).

How it is measured: images and repositories are read once before each measurement, so that all start with a warm page
cache; the disk is synced before and after, outside the timing (what a peer leaves for the disk to do is the column
`sync s`). Peers take turns within each repetition. Figures are medians, all runs are beside them and in the CSV files.
CPU and peak memory are of the command's whole tree of processes (memory: of the largest one). Stored is what the
repository grew by, files' sizes summed. Each restored image is compared with the one backed up by `cmp`. Compression is zstd
at level 3; borg runs unencrypted, restic cannot. Times of different machines do not compare.

"""


def guest_section(measurements: Sequence[Measurement], machine: dict[str, Any], plots: Sequence[Path]) -> list[str]:
    """Everything about one guest."""
    guest = machine["guest"]
    if guest.startswith("year"):
        return _year_section(measurements, machine)
    lines = [f"## Guest {guest}", "", *_conditions(measurements, machine), ""]
    if machine["nights"]:
        lines += ["### Its days", "", *_days(machine["nights"]), ""]
    lines += ["### What must be", "", *verdict_table(guest_verdicts(measurements, rows_of(guest))), ""]
    lines += ["### Backups", "", *backup_table(measurements), "", "### Restores", "", *restore_table(measurements), ""]
    lines += ["### Other tasks", "", *task_table(measurements), ""]
    for path in plots:
        lines += [f"![{path.stem.replace('-', ' ')}](images/{path.name})", ""]
    return lines


def later_section(measurements: Sequence[Measurement], machine: dict[str, Any]) -> list[str]:
    """What of a guest was measured later than all else of it: the rows of one run that had only some."""
    given = [each for each in guest_verdicts(measurements, rows_of(machine["guest"])) if each.word != "not measured"]
    lines = [f"### Measured again on {machine['date']}", "", *_conditions(measurements, machine), ""]
    lines += [*verdict_table(given), "", *backup_table(measurements), ""]
    return [*lines, *task_table(measurements), ""]


def _year_section(measurements: Sequence[Measurement], machine: dict[str, Any]) -> list[str]:
    """Everything about the long chain."""
    scale = machine["guest"].split("-")[1]
    lines = [f"## A year of backups, at 1/{scale} of the size", "", *_conditions(measurements, machine), ""]
    lines += ["### What must be", "", *verdict_table(year_verdicts(measurements)), ""]
    return [*lines, "### All tasks", "", *task_table(measurements), ""]


def _conditions(measurements: Sequence[Measurement], machine: dict[str, Any]) -> list[str]:
    versions = dict.fromkeys(one.version for one in measurements if one.version)
    busiest = max((load for one in measurements for load in one.load), default=0.0)
    hardware = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_bytes'] >> 30} GiB"
    return [
        f"- {machine['date']}, {machine['runs']} runs, `{machine['command']}`",
        f"- {hardware}, Linux {machine['kernel']}, Python {machine['python']}",
        f"- {'; '.join(versions)}",
        f"- missing peers: {', '.join(machine['missing']) or 'none'}",
        f"- highest load average before a measurement: {busiest}",
    ]


def _days(days: Sequence[dict[str, Any]]) -> list[str]:
    rows = [
        (str(one["night"]), one["name"], one["story"], str(one["allocated_bytes"] >> 20), str(one["packages_changed"]))
        for one in days
    ]
    return markdown(("day", "name", "what happened", "allocated MiB", "packages changed"), rows)


def newest_results(folder: Path) -> dict[str, list[Path]]:
    """The newest whole CSV of each guest, and later ones that have only some of its rows; names begin with the date."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*.csv")):
        if not path.with_suffix(".json").exists():
            continue
        guest = _machine_of(path)["guest"]
        if guest in found and not _is_whole(path, guest):
            found[guest].append(path)
        else:
            found[guest] = [path]
    return found


def _is_whole(path: Path, guest: str) -> bool:
    """Whether a CSV has a backup of each of the guest's days, by all the usual peers."""
    found = {(one.row, one.peer) for one in read_csv(path) if one.task == "backup"}
    return guest.startswith("year") or found >= set(product(rows_of(guest), USUAL_PEERS))


def _machine_of(path: Path) -> dict[str, Any]:
    machine: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
    return machine


def summary_section(measurements: Sequence[Measurement], machines: Sequence[dict[str, Any]]) -> list[str]:
    """The first screen: a picture, ten rows, each the newest of its kind, and where they come from."""
    machine = machines[0]
    dates = ", ".join(each["date"] for each in machines)
    return [
        "![deltaimg beside restic and borg](images/benchmark-summary.svg)",
        "",
        *summary_table(measurements),
        "",
        f"Medians, the smallest in bold; guest {machine['guest']}, {dates}, "
        f"{machine['cpu']}, {machine['cores']} cores.",
        "",
    ]


def write_between(document: Path, lines: Sequence[str], marks: tuple[str, str] = (_START, _END)) -> None:
    """Put the lines between marks of the document."""
    start, end = marks
    text = document.read_text() if document.exists() else f"{_INTRODUCTION}{start}\n{end}\n"
    if start not in text or end not in text:
        text += f"\n{start}\n{end}\n"
    before, after = text.split(start)[0], text.split(end, 1)[1]
    document.write_text(f"{before}{start}\n\n" + "\n".join(lines) + f"{end}{after}")


def main() -> None:
    """Generate the document."""
    parser = argparse.ArgumentParser(description="Write docs/benchmarks.md from the newest results.")
    parser.add_argument("--results", type=Path, default=_CHECKOUT / "benchmarks" / "results")
    parser.add_argument("--docs", type=Path, default=_CHECKOUT / "docs")
    given = parser.parse_args()
    lines: list[str] = []
    for guest, (path, *later) in sorted(newest_results(given.results).items()):
        measurements = read_csv(path)
        plots = [] if guest.startswith("year") else draw_all(measurements, guest, given.docs / "images")
        machine = _machine_of(path)
        lines += guest_section(measurements, machine, plots)
        for part in later:
            lines += later_section(read_csv(part), _machine_of(part))
        if guest == SUMMARY_GUEST:
            newest = reduce(merge, map(read_csv, (path, *later)))
            machines = [_machine_of(each) for each in (path, *later)]
            draw_summary(newest, given.docs / "images" / "benchmark-summary.svg")
            write_between(given.docs / "benchmarks.md", summary_section(newest, machines), _SUMMARY_MARKS)
    given.docs.mkdir(parents=True, exist_ok=True)
    write_between(given.docs / "benchmarks.md", lines)


if __name__ == "__main__":
    main()
