# SPDX-License-Identifier: Apache-2.0
"""`deltaimg init`."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated, Optional

import typer

from deltaimg.cli.option_parameters import takes_options
from deltaimg.cli.options import Json, Quiet, Repo, Verbose, require_repo
from deltaimg.cli.terminal import Terminal
from deltaimg.options.store import StoreOptions


@takes_options
def init(
    store: StoreOptions = StoreOptions(),
    repo: Repo = None,
    group: Annotated[
        Optional[str],  # noqa: UP045  typer reads this at run time
        typer.Option(
            "--group",
            metavar="GROUP",
            help="Share it: every member of this group, a name or a number, may back up to it and prune it.",
            show_default=False,
        ),
    ] = None,
    like: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--like",
            metavar="REPO",
            help="Make a member of this repository's family, to which 'sync' copies records without decoding them.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Create a repository.

    Its folder must be empty, or not exist yet. Modes follow the umask, but nothing in it is ever open to all users.
    Repositories of a family have the key of their digests in common, and nothing else.

    Examples:

        deltaimg init -r /backup/repo
        deltaimg init -r /srv/backup/repo --group backup
        deltaimg init -r /mnt/offsite/repo --like /backup/repo
    """
    from deltaimg.api.repositories import create_repository, open_repository

    location = require_repo(repo)
    with Terminal(as_json=as_json, is_quiet=quiet, is_verbose=verbose) as terminal:
        with nullcontext() if like is None else open_repository(like, store) as model:
            repository = create_repository(location, store, group=group, like=model)
        terminal.watch(repository)
        config = repository.config
        if as_json:
            terminal.print_json({"repository": location, "id": config.repository_id, "family": config.family_id})
        terminal.remark(f"repository {config.repository_id[:8]} made in {location}")
