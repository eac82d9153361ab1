# SPDX-License-Identifier: Apache-2.0
"""How commands open the repository that they are given: used as its store options say, counted, and closed at the end."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from deltaimg.cli.options import CACHE_VARIABLE, require_repo
from deltaimg.cli.passphrase import ask_passphrase
from deltaimg.options.store import StoreOptions

if TYPE_CHECKING:
    from deltaimg.api.results import Repository
    from deltaimg.cli.terminal import Terminal


def open_repo(
    repo: str | None,
    store: StoreOptions,
    terminal: Terminal,
    *,
    uses_cache: bool = True,
    cache_dir: str | None = None,
    needs_key: bool = True,
    may_only_write: bool = False,
) -> Repository:
    """Open the repository of a command; the terminal shows with the result what went to its store, and closes it.

    Args:
        uses_cache: whether metadata and packs of a remote repository may come from this host: not where damage is looked for.
        needs_key: whether nothing can be done with an encrypted repository without a key.
        may_only_write: whether the key of a write-only host will do.
        cache_dir: where this host keeps it; None for the usual place.
    """
    from deltaimg.api.repositories import open_repository

    folder = (cache_dir or find_cache_dir()) if uses_cache else None
    repository = open_repository(
        require_repo(repo),
        store,
        cache_folder=folder,
        ask=ask_passphrase,
        needs_key=needs_key,
        may_only_write=may_only_write,
    )
    terminal.watch(repository)
    return repository


def find_cache_dir() -> str | None:
    """Return where this host keeps its cache; None for a user without a home folder."""
    from deltaimg.api.cache import find_cache_folder

    return os.environ.get(CACHE_VARIABLE) or find_cache_folder()
