#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure deltaimg and its peers on the real guests of `guests.py`: one command, one CSV, one summary.

    python benchmarks/run.py --work DIR [--guest ext4] [--runs 3] [--rows full,quiet,...] [--peers restic,cp,...]

Reads   `DIR/NAME-nightN.raw`; never changes them.
Writes  `DIR/trial/` (emptied at the end), `benchmarks/results/DATE-GUEST.csv` and `.json` (machine and versions), after
        each step; rows measured earlier on the same day stay there, so that a campaign can be run in parts.
Rows    the guest's days (full, ordinary, upgrade, quiet, repack, new-data, release), all peers; restore (of the first
        and the last of these); verify (all that is stored then); forget (all but two, and prune); and deltaimg's own:
        digest, start-up, chain, deep (of the mariadb guest), memory. Without --rows: all that the guest has but memory
        (30 GiB of disk).
Always  whatever cannot be run is reported: a missing peer, a failed command, a restore that is not equal.
"""

from __future__ import annotations

import argparse
import compileall
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from guest.days import DAYS_OF, MORE_DAYS, rows_of
from keepers import Deltaimg
from measuring.arguments import make_parser, names_of
from measuring.campaign import Campaign, Setting, say
from measuring.deep_rows import run_deep
from measuring.files import claimed
from measuring.own_rows import run_chain, run_digest, run_memory, run_start_up
from measuring.process import CommandError
from measuring.results import Measurement
from measuring.store_results import ResultFile, describe_machine
from measuring.tables import backup_table, restore_table, task_table, verdict_table
from measuring.verdicts import guest_verdicts
from peer import CHECKOUT, Peer
from peers import PEERS, USUAL_PEERS, install_missing

_OWN_ROWS = ("digest", "start-up", "chain", "deep", "memory")
_ALL_ROWS = tuple(dict.fromkeys(row for guest in DAYS_OF for row in rows_of(guest)))
_ROWS = (*_ALL_ROWS, "restore", "verify", "forget", *_OWN_ROWS)


def parse_arguments() -> argparse.Namespace:
    """Read the command line; names that do not exist end the run before it starts."""
    parser = make_parser(__doc__, _ROWS)
    parser.set_defaults(rows=None)
    parser.add_argument("--guest", default="ext4", choices=list(DAYS_OF))
    parser.add_argument("--peers", type=names_of(tuple(PEERS)), default=USUAL_PEERS, help=",".join(PEERS))
    parser.add_argument(
        "--restore-backups", type=names_of(tuple("012345")), default=None, help="default: first and last"
    )
    given = parser.parse_args()
    possible = rows_for(given.guest)
    given.rows = given.rows or tuple(row for row in possible if row != "memory")
    if strange := [row for row in given.rows if row not in possible]:
        parser.error(f"the guest {given.guest} has no row {', '.join(strange)}: choose from {', '.join(possible)}")
    return given


def rows_for(guest: str) -> tuple[str, ...]:
    """The rows that can be measured on a guest."""
    here = {"digest": "quiet" in rows_of(guest), "deep": guest in MORE_DAYS}
    return tuple(row for row in (*rows_of(guest), "restore", "verify", "forget", *_OWN_ROWS) if here.get(row, True))


def measure_all(setting: Setting, peers: Sequence[Peer], given: argparse.Namespace) -> Iterator[list[Measurement]]:
    """Run the rows asked for, the shared ones first; yield what each step found."""
    last = len(setting.rows) - 1
    numbers = [number for number, row in enumerate(setting.rows) if row in given.rows]
    # What is forgotten is all but two, and means little unless all that the guest has is stored before.
    tip = last if not numbers or "forget" in given.rows else numbers[-1]
    campaign = Campaign(setting, peers)
    if numbers:
        yield campaign.run_backups(numbers, tip)
    elif {"restore", "verify", "forget"} & set(given.rows):
        numbers = [0, last]
        campaign.run_backups(numbers, tip)
    if "restore" in given.rows:
        restored = [int(number) for number in given.restore_backups or {numbers[0], numbers[-1]}]
        yield campaign.run_restores(sorted(restored), tip)
    if "verify" in given.rows:
        yield campaign.run_verifies(tip)
    if "forget" in given.rows:
        yield campaign.run_forget(tip)
    deltaimg = next((peer for peer in peers if isinstance(peer, Deltaimg)), None)
    if deltaimg:
        yield from measure_own(setting, deltaimg, given.rows)


def measure_own(setting: Setting, peer: Deltaimg, rows: Sequence[str]) -> Iterator[list[Measurement]]:
    """The rows that only deltaimg has; a failure is noted and the others go on."""
    tasks: dict[str, Callable[[], list[Measurement]]] = {
        "digest": lambda: run_digest(setting, setting.rows.index("quiet")),
        "start-up": lambda: run_start_up(setting, peer),
        "chain": lambda: run_chain(setting, peer),
        "deep": lambda: run_deep(setting, peer),
        "memory": lambda: run_memory(setting, peer),
    }
    for name in _OWN_ROWS:
        if name not in rows:
            continue
        try:
            yield tasks[name]()
        except (CommandError, OSError) as failure:
            say(f"row {name} failed: {failure}")
            yield [Measurement(setting.guest, name, name, 0, peer.name, note=f"failed: {str(failure)[-300:]}")]


def main() -> None:
    """Measure, write, print."""
    given = parse_arguments()
    setting = Setting(given.guest, given.work.resolve(), given.runs)
    if not setting.image(len(setting.rows) - 1).exists():
        sys.exit(f"run.py: {setting.guest} is not complete in {setting.work}: run benchmarks/guests.py first")
    chosen = [PEERS[name] for name in given.peers]
    missing = install_missing(chosen)
    for peer in missing:
        say(f"{peer.name} is missing and cannot be installed: its rows stay empty")
    # As an installation does. Where the environment forbids Python to keep what it compiles, each command would compile again.
    compileall.compile_dir(CHECKOUT / "deltaimg", quiet=1)
    options = f"--guest {given.guest} --runs {given.runs} --rows {','.join(given.rows)} --peers {','.join(given.peers)}"
    machine = describe_machine(given.guest, given.runs, f"python benchmarks/run.py --work WORK {options}")
    machine["missing"] = [peer.name for peer in missing]
    machine["nights"] = _days_of(given.work / "guests.json", given.guest)
    results = ResultFile(given.results, machine, {str(setting.work): "WORK", str(CHECKOUT): "."})
    with claimed(setting.trial):
        for found in measure_all(setting, [peer for peer in chosen if peer not in missing], given):
            results.add(found)
    found = results.found
    tables = (
        backup_table(found),
        restore_table(found),
        task_table(found),
        verdict_table(guest_verdicts(found, setting.rows)),
    )
    print("\n\n".join("\n".join(table) for table in tables))
    if any(0 in one.equal for one in found):
        sys.exit("run.py: a restored image was not equal")


def _days_of(path: Path, guest: str) -> object:
    """What guests.json says about the days, if it is there."""
    noted = json.loads(path.read_text()) if path.exists() else {}
    return noted.get("guests", {}).get(guest, {}).get("nights", [])


if __name__ == "__main__":
    main()
