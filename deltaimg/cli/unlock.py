# SPDX-License-Identifier: Apache-2.0
"""`deltaimg unlock`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from deltaimg.cli.lock_wait import open_to_lock
from deltaimg.cli.option_parameters import takes_options
from deltaimg.cli.options import Json, Quiet, Repo, Verbose
from deltaimg.cli.terminal import Terminal
from deltaimg.options.store import StoreOptions

if TYPE_CHECKING:
    from deltaimg.api.results import FoundLock


@takes_options
def unlock(
    name: Annotated[
        Optional[str],  # noqa: UP045  typer reads this at run time
        typer.Argument(metavar="NAME", help="An image, or another name that the list shows.", show_default="list all"),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Remove it even if its holder is active: that run will fail.")
    ] = False,
    store: StoreOptions = StoreOptions(),
    repo: Repo = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """List the locks in a repository, or remove one.

    Removing one is rarely needed. The lock of a process that has died is removed by the next process that needs it: at once
    on the same host, otherwise (another host, another boot, a container) after 90 seconds without a heartbeat. A damaged
    lock is treated as that of an unknown holder. A run whose lock was removed notices before it commits, and fails.

    Examples:

        deltaimg unlock
        deltaimg unlock vm1
        deltaimg unlock .maintenance --force
    """
    from deltaimg.api.repositories import list_locks, remove_lock
    from deltaimg.describe.locks import describe_lock

    with Terminal(as_json=as_json, is_quiet=quiet, is_verbose=verbose) as terminal:
        repository = open_to_lock(repo, None, store, terminal, needs_key=False)
        if name is not None:
            removed = remove_lock(repository, name, is_forced=force)
            if as_json:
                terminal.print_json(describe_lock(removed))
            terminal.remark(f"removed the lock '{removed.label}' of {removed.describe()}")
            return
        locks = list_locks(repository)
        if as_json:
            terminal.print_json([describe_lock(each) for each in locks])
        elif not locks:
            terminal.print("no locks")
        else:
            terminal.print_table(
                ("name", "owner", "host", ">process", "state", "purpose"), [_make_row(each) for each in locks]
            )


def _make_row(found: FoundLock) -> list[str]:
    from deltaimg.describe.locks import name_lock_state

    state = name_lock_state(found)
    if found.lock is None:
        return [found.label, "?", "?", "?", state, str(found.error)]
    return [found.label, found.lock.owner, found.lock.host, str(found.lock.pid), state, found.lock.purpose]
