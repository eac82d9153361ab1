#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure deltaimg and its peers on the real guests of `guests.py`: one command, one CSV, one summary.

    python benchmarks/run.py --work DIR [--guest ext4] [--runs 3] [--rows full,quiet,...] [--peers restic,cp,...]

Reads   `DIR/NAME-nightN.raw`; never changes them.
Writes  `DIR/trial/` (emptied at the end), `benchmarks/results/DATE-GUEST.csv` and `.json` (machine and versions).
Rows    full, ordinary, upgrade, quiet, repack, new-data (a night each, all peers), restore (the first and the last
        of these), and deltaimg's own: digest, start-up, chain, memory. Without --rows: all but memory (30 GiB of disk).
Always  whatever cannot be run is reported: a missing peer, a failed command, a restore that is not equal.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

from measuring.campaign import NIGHT_ROWS, Campaign, Setting, say
from measuring.files import remove
from measuring.judge import judge
from measuring.own_rows import run_chain, run_digest, run_memory, run_start_up
from measuring.process import CommandError
from measuring.results import Measurement, write_csv
from measuring.tables import night_table, restore_table, verdict_table
from peers import CHECKOUT, PEERS, USUAL_PEERS, Deltaimg, Peer, install_missing

_OWN_ROWS = ("digest", "start-up", "chain", "memory")
_ROWS = (*NIGHT_ROWS, "restore", *_OWN_ROWS)
_USUAL_ROWS = tuple(row for row in _ROWS if row != "memory")


def parse_arguments() -> argparse.Namespace:
    """Read the command line; names that do not exist end the run before it starts."""
    parser = argparse.ArgumentParser(description="Measure deltaimg and its peers.")
    parser.add_argument("--work", type=Path, default=Path("work-benchmarks"), help="where guests.py put the images")
    parser.add_argument("--guest", default="ext4", help="ext4 or xfs")
    parser.add_argument("--runs", type=int, default=3, help="repetitions; medians are judged")
    parser.add_argument("--rows", type=_names(_ROWS), default=_USUAL_ROWS, help=",".join(_ROWS))
    parser.add_argument("--peers", type=_names(tuple(PEERS)), default=USUAL_PEERS, help=",".join(PEERS))
    parser.add_argument("--restore-nights", type=_names(tuple("012345")), default=None, help="default: first and last")
    parser.add_argument("--results", type=Path, default=CHECKOUT / "benchmarks" / "results")
    return parser.parse_args()


def measure_all(setting: Setting, peers: Sequence[Peer], given: argparse.Namespace) -> list[Measurement]:
    """Run the rows asked for, the shared ones first."""
    nights = [number for number, row in enumerate(NIGHT_ROWS) if row in given.rows]
    found: list[Measurement] = []
    campaign = Campaign(setting, peers)
    if "restore" in given.rows and not nights:
        nights = [0, len(NIGHT_ROWS) - 1]
        campaign.run_nights([NIGHT_ROWS[night] for night in nights])
    elif nights:
        found += campaign.run_nights(given.rows)
    if "restore" in given.rows:
        restored = [int(night) for night in given.restore_nights or {nights[0], nights[-1]}]
        found += campaign.run_restores(sorted(restored), nights[-1])
    deltaimg = next((peer for peer in peers if isinstance(peer, Deltaimg)), None)
    return found + (measure_own(setting, deltaimg, given.rows) if deltaimg else [])


def measure_own(setting: Setting, peer: Deltaimg, rows: Sequence[str]) -> list[Measurement]:
    """The rows that only deltaimg has; a failure is noted and the others go on."""
    tasks: dict[str, Callable[[], list[Measurement]]] = {
        "digest": lambda: run_digest(setting, NIGHT_ROWS.index("quiet")),
        "start-up": lambda: run_start_up(setting, peer),
        "chain": lambda: run_chain(setting, peer),
        "memory": lambda: run_memory(setting, peer),
    }
    found: list[Measurement] = []
    for name in _OWN_ROWS:
        if name not in rows:
            continue
        try:
            found += tasks[name]()
        except (CommandError, OSError) as failure:
            say(f"row {name} failed: {failure}")
            found.append(Measurement(setting.guest, name, name, 0, peer.name, note=f"failed: {str(failure)[-300:]}"))
    return found


def make_anonymous(found: Sequence[Measurement], work: Path) -> None:
    """Take this machine's paths out of what will be committed."""
    names = {str(work): "WORK", sys.executable: "python", str(CHECKOUT): "."}
    for one in found:
        for path, name in names.items():
            one.command = one.command.replace(path, name)
            one.note = one.note.replace(path, name)


def describe_machine(given: argparse.Namespace, missing: Sequence[Peer]) -> dict[str, object]:
    """What a reader needs to judge the figures."""
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = [line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    options = f"--guest {given.guest} --runs {given.runs} --rows {','.join(given.rows)} --peers {','.join(given.peers)}"
    return {
        "date": date.today().isoformat(),
        "guest": given.guest,
        "runs": given.runs,
        "cpu": cpu[0] if cpu else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": memory,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "command": f"python benchmarks/run.py --work WORK {options}",
        "missing": [peer.name for peer in missing],
        "nights": _nights_of(given.work / "guests.json", given.guest),
    }


def main() -> None:
    """Measure, write, print."""
    given = parse_arguments()
    setting = Setting(given.guest, given.work.resolve(), given.runs)
    if not setting.image(len(NIGHT_ROWS) - 1).exists():
        sys.exit(f"run.py: {setting.guest} is not complete in {setting.work}: run benchmarks/guests.py first")
    chosen = [PEERS[name] for name in given.peers]
    missing = install_missing(chosen)
    for peer in missing:
        say(f"{peer.name} is missing and cannot be installed: its rows stay empty")
    remove(setting.trial)
    setting.trial.mkdir(parents=True)
    try:
        found = measure_all(setting, [peer for peer in chosen if peer not in missing], given)
    finally:
        remove(setting.trial)
    make_anonymous(found, setting.work)
    machine = describe_machine(given, missing)
    stem = given.results / f"{machine['date']}-{given.guest}"
    write_csv(stem.with_suffix(".csv"), found)
    stem.with_suffix(".json").write_text(json.dumps(machine, indent=1) + "\n")
    print("\n".join([*night_table(found), "", *restore_table(found), "", *verdict_table(judge(found))]))
    if any(0 in one.equal for one in found):
        sys.exit("run.py: a restored image was not equal")


def _names(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """A parser of comma-separated names."""

    def parse(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: choose from {', '.join(known)}")
        return names

    return parse


def _nights_of(path: Path, guest: str) -> object:
    """What guests.json says about the nights, if it is there."""
    noted = json.loads(path.read_text()) if path.exists() else {}
    return noted.get("guests", {}).get(guest, {}).get("nights", [])


if __name__ == "__main__":
    main()
