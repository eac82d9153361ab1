# SPDX-License-Identifier: Apache-2.0
"""`deltaimg stats`."""

from __future__ import annotations

from deltaimg.cli.option_parameters import takes_options
from deltaimg.cli.options import Json, Quiet, Repo, Verbose
from deltaimg.cli.store_access import open_repo
from deltaimg.cli.terminal import Terminal, format_bytes, format_count
from deltaimg.options.store import StoreOptions


@takes_options
def stats(
    store: StoreOptions = StoreOptions(),
    repo: Repo = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Sum up a repository: what it holds, and its size.

    Examples:

        deltaimg stats
        deltaimg stats --json
    """
    from deltaimg.api.inspection import inspect_repository
    from deltaimg.describe.inspection import describe_totals

    with Terminal(as_json=as_json, is_quiet=quiet, is_verbose=verbose) as terminal:
        repository = open_repo(repo, store, terminal)
        totals = inspect_repository(repository)
        for each in totals.damaged:
            terminal.warn(f"{each.label} is damaged, and not in these sums: {each.error}")
        if as_json:
            terminal.print_json(describe_totals(totals, repository.config.repository_id))
            return
        count = sum(totals.snapshots.values())
        terminal.print_pairs(
            [
                (
                    "snapshots",
                    f"{count}, of {format_count(len(totals.snapshots), 'image')}"
                    + (f"; {len(totals.damaged)} damaged" if totals.damaged else ""),
                ),
                ("apparent", f"{format_bytes(totals.apparent_bytes)}, all snapshots together"),
                ("allocated", format_bytes(totals.allocated_bytes)),
                (
                    "content kept",
                    f"{format_bytes(totals.record_bytes)} in {format_count(totals.record_count, 'record')}",
                ),
                ("stored", format_bytes(totals.total_bytes)),
            ]
        )
        terminal.print()
        rows = [
            [kind, str(number), format_bytes(totals.stored_bytes[kind])]
            for kind, number in sorted(totals.objects.items())
        ]
        terminal.print_table(("kind", ">objects", ">bytes"), rows)
