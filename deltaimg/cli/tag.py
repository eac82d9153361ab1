# SPDX-License-Identifier: Apache-2.0
"""`deltaimg tag`."""

from __future__ import annotations

from typing import Annotated

import typer

from deltaimg.cli.lock_wait import LockWait, open_to_lock
from deltaimg.cli.option_parameters import takes_options
from deltaimg.cli.options import Json, Quiet, Repo, Snapshot, Verbose
from deltaimg.cli.terminal import Terminal
from deltaimg.errors import UsageError
from deltaimg.options.store import StoreOptions

_ACTIONS = ("add", "remove")
_EXAMPLE = "deltaimg tag add vm1@latest weekly"


@takes_options
def tag(
    action: Annotated[str, typer.Argument(metavar="ACTION", help="add or remove.")],
    snapshot: Snapshot,
    tags: Annotated[
        list[str] | None, typer.Argument(metavar="TAG", help="Tags, for people and for 'forget --keep-tag'.")
    ] = None,
    lock_wait: LockWait = None,
    store: StoreOptions = StoreOptions(),
    repo: Repo = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Add tags to a snapshot, or remove them.

    A tag that the snapshot has already, or does not have, is no error. The snapshot itself stays as it was written; the
    change is stored beside it. Of a group, it is that of all members.

    Examples:

        deltaimg tag add vm1@latest weekly offsite
        deltaimg tag remove vm1@2026-11-23 weekly
    """
    from deltaimg.api.retention import list_meant
    from deltaimg.api.retention import tag as change_tags
    from deltaimg.describe.snapshots import describe_all_said

    if action not in _ACTIONS:
        raise UsageError(f"'{action[:60]}' is neither add nor remove", hint=_EXAMPLE)
    if not tags:
        raise UsageError("no tag is named", hint=_EXAMPLE)
    with Terminal(as_json=as_json, is_quiet=quiet, is_verbose=verbose) as terminal:
        repository = open_to_lock(repo, lock_wait, store, terminal)
        changes = {"added" if action == "add" else "removed": tags}
        found = [change_tags(repository, each, **changes) for each in list_meant(repository, snapshot)]
        if as_json:
            terminal.print_json(describe_all_said(found))
        for each in found:
            terminal.remark(f"{each.label}  {', '.join(each.tags) or 'no tags'}")
