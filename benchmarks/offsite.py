#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Backups and copies over a line: S3 and SFTP servers of this machine, deltaimg and its peers beside each other.

    python benchmarks/offsite.py --work DIR [--rows full,restore,...] [--runs 3] [--guest ext4]

Reads   `DIR/NAME-nightN.raw` of `guests.py`; never changes them.
Writes  `DIR/offsite/` (emptied at the end), `benchmarks/results/DATE-offsite.md`: a table for each row, rows measured
        earlier on the same day kept.
Rows    full      a full backup to a local folder, SFTP and S3, as fast as the machine is; the servers' own clients beside it
        restore   of a guest, over 50 ms a round trip and 100 Mbit/s
        wire      bytes that the second backup sends over the line, against what it stores in a local folder
        sync      requests that copying one backup after another takes
        limit     `--bwlimit 1M` for a minute, second by second
        cuts      bytes sent where the line is cut every few seconds, against an uncut run
        mirror    a plain copy brought up to date, against rsync
        rdiff     the same by rdiff and scp
        metadata  opening, listing and checking many snapshots over 50 ms a round trip, with a cold cache
        dask      verifying a guest on the workers of a Dask cluster, against threads of one process
Always  a row that fails says so; what is restored or mirrored is compared with the image.
"""

from __future__ import annotations

import importlib
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from itertools import pairwise
from pathlib import Path

from measuring.arguments import make_parser
from measuring.files import claimed
from measuring.process import CommandError
from peer import CHECKOUT

_HEADING = re.compile(r"^## (?P<row>\S+)", re.MULTILINE)


def main() -> None:
    """Measure the rows asked for, and write after each."""
    # The servers are those of the tests, which lie beside the benchmarks.
    sys.path.insert(0, str(CHECKOUT))
    rows = importlib.import_module("measuring.offsite_rows")
    named = {**rows.ROWS, "dask": importlib.import_module("measuring.cluster_row").row_dask}
    servers_of = importlib.import_module("measuring.offsite_servers")
    parser = make_parser(__doc__, tuple(named))
    parser.add_argument("--guest", default="ext4")
    given = parser.parse_args()
    path = given.results / f"{date.today().isoformat()}-offsite.md"
    with claimed(given.work.resolve() / "offsite") as trial, servers_of.run_servers(trial) as servers:
        bench = rows.Bench(given.work.resolve(), trial, given.guest, given.runs, servers)
        for row in given.rows:
            write_row(path, row, run_row(row, named[row], bench))


def run_row(row: str, measure: Callable[[object], list[str]], bench: object) -> list[str]:
    """Return the lines of a row's table."""
    print(f"offsite: {row}", flush=True)
    try:
        lines = measure(bench)
    except (CommandError, OSError, AssertionError, subprocess.SubprocessError) as failure:
        lines = [f"failed: {str(failure)[-500:]}"]
    print("\n".join(lines), flush=True)
    return lines


def write_row(path: Path, row: str, lines: list[str]) -> None:
    """Put a row's table into the file of results, in place of an earlier one."""
    text = path.read_text() if path.exists() else f"# Offsite\n\n{describe_machine()}\n"
    starts = [(found["row"], found.start()) for found in _HEADING.finditer(text)] + [("", len(text))]
    for (name, start), (_, end) in pairwise(starts):
        if name == row:
            text = text[:start] + text[end:]
            break
    path.write_text(text.rstrip() + f"\n\n## {row}\n\n" + "\n".join(lines) + "\n")


def describe_machine() -> str:
    """Say where this is measured."""
    return f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}; medians.\n"


if __name__ == "__main__":
    main()
