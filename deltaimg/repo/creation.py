# SPDX-License-Identifier: Apache-2.0
"""`init`: an empty store becomes a repository. Of several that try at once, one succeeds, on every kind of store."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime

from deltaimg.errors import ObjectExists, RepositoryExists
from deltaimg.format.config import CONFIG_NAME, Config, build_config
from deltaimg.format.manifest import format_time
from deltaimg.repo.keys import find_kind
from deltaimg.repo.lock import MaintenanceLock
from deltaimg.repo.object_kinds import LOCK, PROBE
from deltaimg.repo.repository import Repository, list_content
from deltaimg.store.interface import Store


def create_repository(
    store: Store,
    *,
    created: datetime,
    software: str,
    like: Config | None = None,
    prepare: Callable[[], None] = lambda: None,
) -> Repository:
    """Make a repository in an empty store.

    Args:
        like: of a repository in whose family the new one is to be: what is stored in either is valid in the other.
        prepare: called once the store is known to be empty, before anything is put into it.

    Raises:
        RepositoryExists: there is anything in the store. RepositoryLocked: another process makes a repository there.
    """
    for name in list_content(store):
        if name == CONFIG_NAME:
            raise RepositoryExists(store.location, "there is a repository already")
        # An earlier attempt may have died before it was done.
        if find_kind(name) not in (LOCK, PROBE):
            raise RepositoryExists(store.location, f"the folder is not empty: it has '{name}'")
    config = Config(
        repository_id=secrets.token_hex(16),
        created=format_time(created),
        digest_key=secrets.token_hex(32) if like is None else like.digest_key,
        software=software,
        family=None if like is None else like.family_id,
    )
    prepare()
    repository = Repository(store, config)
    with MaintenanceLock(repository, "init", created) as lock:
        try:
            repository.objects.put_bytes(CONFIG_NAME, [build_config(config)], lock.check)
        except ObjectExists as error:
            raise RepositoryExists(store.location, "there is a repository already") from error
    return repository
