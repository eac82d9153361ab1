# SPDX-License-Identifier: Apache-2.0
"""`deltaimg forget`."""

from __future__ import annotations

from datetime import tzinfo
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from deltaimg.cli.lock_wait import LockWait, open_to_lock
from deltaimg.cli.option_parameters import takes_options
from deltaimg.cli.options import Json, Quiet, Repo, Verbose
from deltaimg.cli.terminal import Terminal, format_bytes, format_count, format_moment
from deltaimg.options.keep import Policy
from deltaimg.options.store import StoreOptions

if TYPE_CHECKING:
    from deltaimg.api.results import Forgotten, PruneResult

_EXAMPLE = "'deltaimg forget --keep-daily 7 --keep-weekly 4 --dry-run' shows what a policy would do"
_COLUMNS = ("snapshot", "taken", "", "kept by")


@takes_options
def forget(
    policy: Policy,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="With a --keep option: images, all if none is named. Without: snapshots, such as vm1@latest~2 or an id.",
        ),
    ] = None,
    time_zone: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--time-zone",
            metavar="ZONE",
            help="Whose hours and days count, such as UTC or Europe/Berlin.",
            show_default="this host's",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Change nothing; say what a prune would then free.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Forget the named snapshots even if no snapshot of an image remains.")
    ] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Prune afterwards, which frees the space.")] = False,
    lock_wait: LockWait = None,
    store: StoreOptions = StoreOptions(),
    repo: Repo = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Forget snapshots by policy or by name.

    A policy is applied to each image by itself. It keeps every snapshot that any --keep option selects, and always the newest
    one and those that are pinned, damaged or from the future. Hours, days and so on without a snapshot do not count; while
    there are too few, the oldest snapshot is kept.

    Forgetting moves no data and takes a moment. 'deltaimg prune', or --prune, then frees the space.

    With --dry-run, "frees" is what a prune would free for neighbours that are forgotten together.

    Examples:

        deltaimg forget --keep-daily 7 --keep-weekly 4 --keep-monthly 12 --dry-run
        deltaimg forget vm1 vm2 --keep-within 30d --keep-tag release --prune
        deltaimg forget vm1@2026-11-23 vm1@3f9c01
    """
    from deltaimg.api.retention import forget as forget_by_policy
    from deltaimg.api.retention import forget_snapshots
    from deltaimg.api.retention import prune as run_prune
    from deltaimg.api.vanished import find_vanished

    has_rule = policy != Policy()
    _check_options(policy, names, time_zone=time_zone, force=force, prune=prune, dry_run=dry_run)
    with Terminal(as_json=as_json, is_quiet=quiet, is_verbose=verbose) as terminal:
        repository = open_to_lock(repo, lock_wait, store, terminal)
        if has_rule:
            zone = _parse_zone(time_zone)
            found = forget_by_policy(repository, policy, names or [], zone=zone, is_dry_run=dry_run, progress=terminal)
        else:
            found = forget_snapshots(repository, names or [], is_forced=force, is_dry_run=dry_run, progress=terminal)
        # What was forgotten by force may go, also where nothing is left; what has vanished may not.
        pruned = (
            run_prune(repository, is_forced=force and not find_vanished(repository), progress=terminal)
            if prune
            else None
        )
        _print(terminal, found, pruned, is_dry_run=dry_run)
        errors = [each.error for each in found if each.error is not None]
        for error in errors[1:]:
            terminal.warn(str(error))
        if errors:
            raise errors[0]


def _check_options(
    policy: Policy, names: list[str] | None, *, time_zone: str | None, force: bool, prune: bool, dry_run: bool
) -> None:
    """Refuse options that contradict each other; raises UsageError."""
    from deltaimg.errors import UsageError

    has_rule = policy != Policy()
    if has_rule and policy.is_empty:
        raise UsageError("all --keep values are 0, so nothing would be kept", hint=_EXAMPLE)
    if not has_rule and not names:
        raise UsageError("nothing says what to keep, nor what to forget", hint=_EXAMPLE)
    if not has_rule and time_zone is not None:
        raise UsageError("--time-zone makes sense with a --keep option only", hint=_EXAMPLE)
    if has_rule and force:
        raise UsageError(
            "--force is for snapshots that are named: under a policy the newest of an image stays",
            hint="'deltaimg forget vm1@latest --force' forgets the last one",
        )
    if prune and dry_run:
        raise UsageError(
            "--dry-run forgets nothing that could be pruned", hint="leave out one of --prune and --dry-run"
        )


def _parse_zone(name: str | None) -> tzinfo | None:
    """Return the time zone of this name; raises UsageError."""
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    from deltaimg.errors import UsageError

    if name is None:
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UsageError(
            f"'{name[:60]}' is not a valid time zone", hint="write UTC, Europe/Berlin or the like"
        ) from error


def _print(terminal: Terminal, found: list[Forgotten], pruned: PruneResult | None, *, is_dry_run: bool) -> None:
    from deltaimg.cli.prune import print_result
    from deltaimg.describe.forget import describe_forgotten

    if terminal.as_json:
        terminal.print_json(describe_forgotten(found, pruned, is_dry_run=is_dry_run))
        return
    count, listed = 0, [each for each in found if each.plan is not None and not terminal.is_quiet]
    for number, each in enumerate(listed):
        if number:
            terminal.print()
        _print_table(terminal, each)
        count += len(each.plan.forgotten) if each.plan is not None else 0
        terminal.print(f"{each.image}: {_sum_up([each], is_dry_run=is_dry_run)}")
    if len(listed) > 1:
        terminal.print()
        terminal.print(f"{len(listed)} images: {_sum_up(listed, is_dry_run=is_dry_run)}")
    if pruned is not None:
        print_result(pruned, terminal)
    elif count and not is_dry_run:
        terminal.remark("'deltaimg prune' frees the space")
    if not found:
        terminal.remark("no snapshot yet, so nothing to forget")


def _sum_up(found: list[Forgotten], *, is_dry_run: bool) -> str:
    """Return how many snapshots of some images are forgotten, and what that frees where it is known."""
    from deltaimg.describe.forget import sum_reclaimable

    plans = [each.plan for each in found if each.plan is not None]
    gone, known = sum(len(plan.forgotten) for plan in plans), sum(len(plan.verdicts) for plan in plans)
    freed_bytes = sum_reclaimable(found)
    frees = "" if freed_bytes is None else f", which frees {format_bytes(freed_bytes)}"
    return f"{'would forget' if is_dry_run else 'forgot'} {gone} of {format_count(known, 'snapshot')}{frees}"


def _print_table(terminal: Terminal, found: Forgotten) -> None:
    assert found.plan is not None
    groups = {group.refs[-1]: group.reclaimable_bytes for group in found.reclaimable or ()}
    rows = []
    for each in found.plan.verdicts:
        frees = format_bytes(groups[each.ref]) if each.ref in groups else "" if each.is_kept else "with the next"
        row = [
            each.ref.label,
            format_moment(each.ref.taken_at, to_minutes=not terminal.is_verbose),
            "keep" if each.is_kept else "forget",
            ", ".join(each.rules),
        ]
        rows.append(row if found.reclaimable is None else [*row, frees])
    terminal.print_table(_COLUMNS if found.reclaimable is None else (*_COLUMNS, ">frees"), rows)
