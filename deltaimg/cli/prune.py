# SPDX-License-Identifier: Apache-2.0
"""`deltaimg prune`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from deltaimg.cli.lock_wait import LockWait, open_to_lock
from deltaimg.cli.option_parameters import takes_options
from deltaimg.cli.options import Json, Quiet, Repo, Verbose
from deltaimg.cli.terminal import Terminal, format_bytes, format_count, format_seconds
from deltaimg.options.prune import PruneOptions
from deltaimg.options.store import StoreOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deltaimg.api.results import PrunePlan, PruneResult, Waiting


@takes_options
def prune(
    options: PruneOptions,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Print the plan, and change nothing.")] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            "-f",
            help="Also if no snapshot is left, or all that this host has seen of an image have vanished without a forget.",
        ),
    ] = False,
    lock_wait: LockWait = None,
    store: StoreOptions = StoreOptions(),
    repo: Repo = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Delete what no snapshot needs, and free its space.

    Run it after 'forget'. Unneeded packs are deleted whole; others are repacked as far as that is worth it, and
    records of which only part is needed are stored again without the rest. Where restores of the newest snapshots would decode
    too much, records are stored again so that they need less of them.
    Backups and restores may run meanwhile: what they may be using is kept until they end, and deleted by the next prune.
    It may be interrupted at any time; the next one uses what was stored.

    Examples:

        deltaimg prune
        deltaimg prune --dry-run
        deltaimg prune --max-unused 10 --max-repack 20G
        deltaimg prune --trim full
    """
    from deltaimg.api.retention import plan_prune
    from deltaimg.api.retention import prune as run_prune
    from deltaimg.describe.prune import describe_plan, describe_prune, describe_waiting

    with Terminal(as_json=as_json, is_quiet=quiet, is_verbose=verbose) as terminal:
        repository = open_to_lock(repo, lock_wait, store, terminal)
        if dry_run:
            found = plan_prune(repository, options, is_forced=force, progress=terminal)
            if as_json:
                described = {"dry_run": True, **describe_plan(found.plan)}
                terminal.print_json({**described, "waiting": describe_waiting(found.waiting)})
            print_plan(found.plan, terminal)
            print_waiting(found.waiting, terminal)
            return
        result = run_prune(repository, options, is_forced=force, progress=terminal)
        if as_json:
            terminal.print_json(describe_prune(result))
        print_result(result, terminal)


def print_plan(plan: PrunePlan, terminal: Terminal) -> None:
    """Print what a prune would do."""
    terminal.print_pairs(
        [
            ("stored", format_bytes(plan.total_bytes)),
            ("records to cut", str(len(plan.trim.cut))),
            ("deltas to re-encode", str(len(plan.trim.recoded))),
            ("records to split", str(len(plan.trim.splits.entries))),
            ("packs not needed", str(len(plan.dead_packs))),
            ("packs to repack", str(len(plan.repacked_packs))),
            ("other objects", str(len(plan.indexes) + len(plan.signatures) + len(plan.maps))),
            ("frees", f"about {format_bytes(plan.freed_bytes)}"),
            ("writes", f"about {format_bytes(plan.written_bytes)}"),
            ("leaves unused", format_bytes(plan.unused_bytes)),
        ]
    )


def print_result(result: PruneResult, terminal: Terminal) -> None:
    """Print what became of a prune."""
    net = result.freed_bytes - result.written_bytes
    packs = len(result.plan.repacked_packs)
    terminal.remark(
        f"{format_bytes(max(0, net))} freed: {format_bytes(result.freed_bytes)} deleted, "
        f"{format_bytes(result.written_bytes)} written, {format_count(packs, 'pack')} repacked, "
        f"{format_seconds(result.duration_s)}"
    )
    print_waiting(result.waiting, terminal)


def print_waiting(waiting: Sequence[Waiting], terminal: Terminal) -> None:
    """Print what still waits, and for whom."""
    for each in waiting:
        what = f"{format_bytes(each.stored_bytes)} in {format_count(each.objects, 'object')}"
        terminal.remark(f"{what} may be in use; the next prune deletes them when these have ended:")
        for found in each.locks:
            terminal.remark(f"  {found.label}: {found.describe()}")
