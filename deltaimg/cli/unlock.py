# SPDX-License-Identifier: Apache-2.0
"""`deltaimg unlock`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from deltaimg.cli.options import Json, Quiet, Repo, Verbose, require_repo
from deltaimg.cli.terminal import Terminal

if TYPE_CHECKING:
    from datetime import datetime

    from deltaimg.repo.lock_holder import FoundLock


def unlock(
    name: Annotated[
        Optional[str],  # noqa: UP045  typer reads this at run time
        typer.Argument(metavar="NAME", help="An image, or another name that the list shows.", show_default="list all"),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Remove it though its holder may be at work: that run will fail.")
    ] = False,
    repo: Repo = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Say who is at work in a repository; remove a lock.

    This is hardly ever needed. A lock whose process has died is taken away by whoever comes next: at once on the same
    machine, after 90 seconds without a heartbeat on another. A run whose lock is removed notices before it commits, and
    fails.

    Examples:

        deltaimg unlock
        deltaimg unlock vm1
        deltaimg unlock .maintenance --force
    """
    from deltaimg.api.repositories import list_locks, open_repository, remove_lock

    with Terminal(as_json=as_json, is_quiet=quiet, is_verbose=verbose) as terminal:
        repository = open_repository(require_repo(repo))
        if name is not None:
            removed = remove_lock(repository, name, is_forced=force)
            if as_json:
                terminal.print_json(_describe(removed))
            terminal.remark(f"removed the lock '{removed.label}' of {removed.describe()}")
            return
        locks = list_locks(repository)
        if as_json:
            terminal.print_json([_describe(each) for each in locks])
        elif not locks:
            terminal.print("nobody is at work")
        else:
            rows = [
                [each.label, each.lock.owner, each.lock.host, str(each.lock.pid), _tell_state(each), each.lock.purpose]
                for each in locks
            ]
            terminal.print_table(("name", "owner", "host", ">process", "state", "purpose"), rows)


def _tell_state(found: FoundLock) -> str:
    if found.is_gone:
        return "gone"
    return "at work" if found.is_local else "elsewhere"


def _parse_time(text: str) -> datetime | None:
    """Return the moment that a lock gives; None where whoever wrote it wrote something else."""
    from deltaimg.format.manifest import is_time, parse_time

    return parse_time(text) if is_time(text) else None


def _describe(found: FoundLock) -> dict[str, object]:
    from deltaimg.cli.describe import describe_time

    return {
        "name": found.label,
        "owner": found.lock.owner,
        "host": found.lock.host,
        "pid": found.lock.pid,
        **describe_time("since", _parse_time(found.lock.created)),
        "purpose": found.lock.purpose,
        "state": _tell_state(found),
    }
