# SPDX-License-Identifier: Apache-2.0
"""How commands open the repository that they are given: used as its store options say, counted, and closed at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deltaimg.cli.options import require_repo
from deltaimg.options.store import StoreOptions

if TYPE_CHECKING:
    from deltaimg.api.results import Repository
    from deltaimg.cli.terminal import Terminal


def open_repo(repo: str | None, store: StoreOptions, terminal: Terminal) -> Repository:
    """Open the repository of a command; the terminal shows with the result what went to its store, and closes it."""
    from deltaimg.api.repositories import open_repository

    repository = open_repository(require_repo(repo), store)
    terminal.watch(repository)
    return repository
