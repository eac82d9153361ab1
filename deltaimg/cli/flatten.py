# SPDX-License-Identifier: Apache-2.0
"""`deltaimg flatten`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from deltaimg.cli.lock_wait import LockWait, open_to_lock
from deltaimg.cli.option_parameters import takes_options
from deltaimg.cli.options import Json, Quiet, Repo, Verbose
from deltaimg.cli.terminal import Terminal, format_bytes, format_count, format_seconds
from deltaimg.options.flatten import FlattenOptions
from deltaimg.options.store import StoreOptions

if TYPE_CHECKING:
    from deltaimg.api.results import FlattenResult


@takes_options
def flatten(
    options: FlattenOptions,
    snapshot: Annotated[
        list[str] | None,
        typer.Argument(metavar="SNAPSHOT", help="vm1, vm1@latest~2, vm1@2026-11-23, or the beginning of an id."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All snapshots of all images; needs --max-depth.")] = False,
    lock_wait: LockWait = None,
    store: StoreOptions = StoreOptions(),
    repo: Repo = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make snapshots self-contained, or bound delta depth.

    The delta records that a snapshot needs are stored again as literal records, under the same ids. That takes space; the next
    prune frees what is not needed any more. No snapshot's content changes.

    Examples:

        deltaimg flatten vm1@latest
        deltaimg flatten --all --max-depth 4
    """
    from deltaimg.api.retention import flatten as run_flatten
    from deltaimg.errors import UsageError

    if every == bool(snapshot):
        raise UsageError("name snapshots, or --all", hint="deltaimg flatten vm1@latest")
    if every and options.max_depth is None:
        raise UsageError("--all needs --max-depth", hint="deltaimg flatten --all --max-depth 4")
    with Terminal(as_json=as_json, is_quiet=quiet, is_verbose=verbose) as terminal:
        repository = open_to_lock(repo, lock_wait, store, terminal)
        results = run_flatten(repository, snapshot or (), options, progress=terminal)
        if as_json:
            terminal.print_json([describe_flattened(each) for each in results])
        for each in results:
            terminal.remark(
                f"{each.manifest.label}  {'flattened' if each.recoded_records else 'is flat already'}, "
                f"{format_count(each.recoded_records, 'record')} stored as literals, "
                f"{format_bytes(each.written_bytes)} written, {format_seconds(each.duration_s)}"
            )


def describe_flattened(result: FlattenResult) -> dict[str, object]:
    """Return for programs what became of a snapshot."""
    return {
        "snapshot": result.manifest.id,
        "image": result.manifest.image,
        "recoded_records": result.recoded_records,
        "written_bytes": result.written_bytes,
        "duration_s": round(result.duration_s, 3),
    }
