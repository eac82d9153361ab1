# SPDX-License-Identifier: Apache-2.0
"""`deltaimg pin`."""

from __future__ import annotations

from typing import Annotated

import typer

from deltaimg.cli.lock_wait import LockWait, open_to_lock
from deltaimg.cli.option_parameters import takes_options
from deltaimg.cli.options import Json, Quiet, Repo, Snapshot, Verbose
from deltaimg.cli.terminal import Terminal
from deltaimg.options.store import StoreOptions


@takes_options
def pin(
    snapshot: Snapshot,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for people.", show_default=False)] = "",
    lock_wait: LockWait = None,
    store: StoreOptions = StoreOptions(),
    repo: Repo = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Pin a snapshot: it cannot be forgotten until unpinned.

    'deltaimg snapshots' shows which are pinned. Pinning one again changes its reason. Of a group, all members are pinned.

    Examples:

        deltaimg pin vm1@2026-11-23 --reason 'before the upgrade'
    """
    from deltaimg.api.retention import list_meant
    from deltaimg.api.retention import pin as pin_snapshot
    from deltaimg.describe.snapshots import describe_all_said

    with Terminal(as_json=as_json, is_quiet=quiet, is_verbose=verbose) as terminal:
        repository = open_to_lock(repo, lock_wait, store, terminal)
        found = [pin_snapshot(repository, each, reason) for each in list_meant(repository, snapshot)]
        if as_json:
            terminal.print_json(describe_all_said(found))
        terminal.remark(f"pinned {', '.join(each.label for each in found)}")
