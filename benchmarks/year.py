#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure a long chain: forget, prune, check. A year of backups of a synthetic image, restic and borg on the same ones.

    python benchmarks/year.py --work DIR [--scale 1] [--runs 3] [--rows prune,forget,...] [--peers deltaimg,restic,...]

Writes  `DIR/year-N/`: the year's image and repositories at one Nth of the size, which a later run goes on with or uses
        again, and `DIR/trial/`, emptied at the end; `benchmarks/results/DATE-year-N.csv` and `.json` after each row.
Rows    prune   forget 300 of 365 backups and prune, without and with repacking; space against a fresh repository of the
                backups that stay. 64 GiB with 10 GiB of data at scale 1, an Nth of both at scale N; all peers
        forget  one snapshot in the middle of a chain, of as much data and of a tenth of it
        check   1,000 snapshots of four images
        memory  prune and check of a repository whose metadata describes 1 TiB of data, an Nth of it at scale N
Always  peers work on copies of the same repositories, linked file by file where files are large, but for peers that change
        files in place. What cannot be run is reported.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial

from keepers import Keeper
from measuring.arguments import make_parser, names_of
from measuring.campaign import say
from measuring.files import claimed, remove
from measuring.process import CommandError
from measuring.results import Measurement
from measuring.store_results import ResultFile, describe_machine
from measuring.tables import task_table, verdict_table
from measuring.year_rows import Year, run_check, run_forget, run_prune, run_prune_memory
from measuring.year_verdicts import year_verdicts
from peer import CHECKOUT
from peers import PEERS, YEAR_PEERS, install_missing

_ROWS = ("prune", "forget", "check", "memory")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__, _ROWS)
    parser.add_argument("--scale", type=int, default=1, help="divide the sizes by this; the result says so")
    parser.add_argument("--backups", type=int, default=365, help="of the row prune")
    parser.add_argument("--peers", type=names_of(YEAR_PEERS), default=YEAR_PEERS, help="of the row prune")
    return parser.parse_args()


def main() -> None:
    """Measure, write, print."""
    given = parse_arguments()
    year = Year(given.work.resolve(), given.scale, given.backups, given.runs)
    peers = [peer for name in given.peers if isinstance(peer := PEERS[name], Keeper)]
    missing = install_missing(peers)
    options = f"--scale {given.scale} --backups {given.backups} --runs {given.runs} --rows {','.join(given.rows)}"
    command = f"python benchmarks/year.py --work WORK {options} --peers {','.join(given.peers)}"
    machine = describe_machine(year.guest, given.runs, command)
    machine["missing"] = [peer.name for peer in missing]
    results = ResultFile(given.results, machine, {str(year.work): "WORK", str(CHECKOUT): "."})
    tasks: dict[str, list[Callable[[], list[Measurement]]]] = {
        "prune": [partial(run_prune, year, peer) for peer in peers if peer not in missing],
        "forget": [partial(run_forget, year)],
        "check": [partial(run_check, year)],
        "memory": [partial(run_prune_memory, year)],
    }
    with claimed(year.trial):
        for row in given.rows:
            for task in tasks[row]:
                year.trial.mkdir(parents=True, exist_ok=True)
                try:
                    results.add(task())
                except (CommandError, OSError) as failure:
                    say(f"row {row} failed: {failure}")
                    results.add([Measurement(year.guest, row, row, 0, "", note=f"failed: {str(failure)[-300:]}")])
                remove(year.trial)
    print("\n".join([*task_table(results.found), "", *verdict_table(year_verdicts(results.found))]))
    if any("failed" in one.note for one in results.found):
        sys.exit("year.py: a row failed")


if __name__ == "__main__":
    main()
