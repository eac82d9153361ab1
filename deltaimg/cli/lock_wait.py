# SPDX-License-Identifier: Apache-2.0
"""`--lock-wait`: how long a command waits for the locks of others, and how it says so."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from deltaimg.cli.store_access import open_repo
from deltaimg.errors import UsageError

if TYPE_CHECKING:
    from deltaimg.api.results import LockWaiting, Repository
    from deltaimg.cli.terminal import Terminal
    from deltaimg.options.store import StoreOptions

LockWait = Annotated[
    Optional[str],  # noqa: UP045  typer reads this at run time
    typer.Option(
        "--lock-wait",
        metavar="TIME",
        envvar="DELTAIMG_LOCK_WAIT",
        help="Wait this long for a process that holds the lock: 90s, 10m, 2h.",
        show_default="do not wait",
    ),
]

_TIME = re.compile(r"(\d{1,9})([smh]?)", re.ASCII)
_UNIT_S = {"": 1, "s": 1, "m": 60, "h": 3600}


def open_to_lock(
    repo: str | None,
    lock_wait: str | None,
    store: StoreOptions,
    terminal: Terminal,
    *,
    uses_cache: bool = True,
    cache_dir: str | None = None,
    needs_key: bool = True,
    may_only_write: bool = False,
) -> Repository:
    """Open the repository for a command that takes locks or removes them; waiting for others is shown as a stage.

    Args: as `open_repo` takes them.
    """
    waiting = make_lock_waiting(lock_wait, terminal)
    repository = open_repo(
        repo,
        store,
        terminal,
        uses_cache=uses_cache,
        cache_dir=cache_dir,
        needs_key=needs_key,
        may_only_write=may_only_write,
    )
    repository.lock_waiting = waiting
    return repository


def make_lock_waiting(lock_wait: str | None, terminal: Terminal) -> LockWaiting:
    """Return what the locks of a repository wait for, and show in the terminal; raises UsageError for what is no time."""
    from deltaimg.api.repositories import wait_for_locks

    return wait_for_locks(0 if lock_wait is None else parse_wait(lock_wait), terminal)


def parse_wait(text: str) -> int:
    """Return the seconds that `90`, `90s`, `10m` or `2h` means; raises UsageError."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"'{text[:60]}' is not a valid time", hint="write 90s, 10m, 2h or the like")
    return int(match[1]) * _UNIT_S[match[2]]
