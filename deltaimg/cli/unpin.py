# SPDX-License-Identifier: Apache-2.0
"""`deltaimg unpin`."""

from __future__ import annotations

from deltaimg.cli.lock_wait import LockWait, open_to_lock
from deltaimg.cli.option_parameters import takes_options
from deltaimg.cli.options import Json, Quiet, Repo, Snapshot, Verbose
from deltaimg.cli.terminal import Terminal
from deltaimg.options.store import StoreOptions


@takes_options
def unpin(
    snapshot: Snapshot,
    lock_wait: LockWait = None,
    store: StoreOptions = StoreOptions(),
    repo: Repo = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Unpin a snapshot: it can be forgotten again. Of a group, all members are unpinned.

    Examples:

        deltaimg unpin vm1@2026-11-23
    """
    from deltaimg.api.retention import list_meant
    from deltaimg.api.retention import unpin as unpin_snapshot
    from deltaimg.describe.snapshots import describe_all_said

    with Terminal(as_json=as_json, is_quiet=quiet, is_verbose=verbose) as terminal:
        repository = open_to_lock(repo, lock_wait, store, terminal)
        found = [unpin_snapshot(repository, each) for each in list_meant(repository, snapshot)]
        if as_json:
            terminal.print_json(describe_all_said(found))
        terminal.remark(f"unpinned {', '.join(each.label for each in found)}")
