# SPDX-License-Identifier: Apache-2.0
"""`deltaimg benchmark`."""

from __future__ import annotations

from deltaimg.cli.options import Json, Quiet, Repo, Verbose
from deltaimg.cli.passphrase import ask_passphrase
from deltaimg.cli.terminal import Terminal, format_bytes


def benchmark(repo: Repo = None, as_json: Json = False, quiet: Quiet = False, verbose: Verbose = False) -> None:
    """Measure how fast this machine can back up.

    Digests, compression and, if a repository is named, its store. It takes some seconds. The slowest line limits a full
    backup.

    Examples:

        deltaimg benchmark
        deltaimg benchmark -r /backup/repo --json
    """
    from deltaimg.api.benchmark import measure_machine
    from deltaimg.api.repositories import open_repository
    from deltaimg.describe.benchmark import describe_measurement

    with Terminal(as_json=as_json, is_quiet=quiet, is_verbose=verbose) as terminal:
        objects = open_repository(repo, ask=ask_passphrase).objects if repo else None
        measured = []
        for each in measure_machine(objects):
            measured.append(each)
            terminal.print(f"{each.what:<18} {format_bytes(each.bytes_per_s) + '/s':>12}  {each.detail}")
        if as_json:
            terminal.print_json([describe_measurement(each) for each in measured])
