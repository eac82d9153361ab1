# SPDX-License-Identifier: Apache-2.0
"""`deltaimg diff`."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from deltaimg.cli.option_parameters import takes_options
from deltaimg.cli.options import Force, Json, Quiet, Repo, Verbose
from deltaimg.cli.store_access import open_repo
from deltaimg.cli.terminal import Terminal, format_bytes, format_count
from deltaimg.options.store import StoreOptions

_SHOWN = 40


@takes_options
def diff(
    older: Annotated[
        str, typer.Argument(metavar="A", help="A snapshot: vm1@latest~1, vm1@2026-11-23, or the beginning of an id.")
    ],
    newer: Annotated[str, typer.Argument(metavar="B", help="Another one, of the same image or not.")],
    plot: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--plot", metavar="FILE", help="Draw where the changes are, as PNG or SVG; needs matplotlib."),
    ] = None,
    force: Force = False,
    store: StoreOptions = StoreOptions(),
    repo: Repo = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """List which extents differ between two snapshots.

    Maps and digests are compared; no content is read. The largest extents are shown, or all of them with -v.

    Examples:

        deltaimg diff vm1@latest~1 vm1@latest
        deltaimg diff vm1@2026-11-01 vm1 --json
        deltaimg diff vm1~1 vm1 --plot changes.png
    """
    from deltaimg.api.compare import diff as run_diff
    from deltaimg.api.compare import map_changes
    from deltaimg.cli.plot import CELLS, check_plot, draw_difference
    from deltaimg.describe.inspection import describe_difference

    with Terminal(as_json=as_json, is_quiet=quiet, is_verbose=verbose) as terminal:
        repository = open_repo(repo, store, terminal)
        if plot is not None:
            check_plot(plot, is_forced=force)
        found = run_diff(repository, older, newer)
        if plot is not None:
            draw_difference(found, map_changes(found, CELLS), plot)
            terminal.remark(f"drawn: {plot}")
        if as_json:
            terminal.print_json(describe_difference(found))
            return
        if not found.extents:
            terminal.print(f"{found.older.label} and {found.newer.label} are equal")
            return
        size = max(found.older.size_bytes, found.newer.size_bytes)
        terminal.print(
            f"{found.older.label} and {found.newer.label} differ in {format_bytes(found.differing_bytes)} "
            f"of {format_bytes(size)}, in {format_count(len(found.extents), 'extent')}"
        )
        shown = found.extents
        if len(shown) > _SHOWN and not verbose:
            shown = tuple(sorted(sorted(shown, key=lambda extent: -extent.length)[:_SHOWN]))
            terminal.print(f"the {_SHOWN} largest (-v lists all):")
        rows = [[str(each.start), str(each.end), format_bytes(each.length)] for each in shown]
        terminal.print_table((">from byte", ">to byte", ">size"), rows)
