# SPDX-License-Identifier: Apache-2.0
"""`init`: an empty store becomes a repository. Of several that try at once, one succeeds, on every kind of store."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime

from deltaimg.crypto.key_slots import Key, wrap_secret
from deltaimg.crypto.secret import Secret
from deltaimg.errors import ObjectExists, RepositoryExists
from deltaimg.format.config import CONFIG_NAME, Config, build_config
from deltaimg.format.key_slot import KEYS
from deltaimg.format.manifest import format_time
from deltaimg.repo.keys import find_kind
from deltaimg.repo.lock import MaintenanceLock
from deltaimg.repo.lock_waiting import LockWaiting
from deltaimg.repo.object_kinds import KEY_SLOT, LOCK, PROBE
from deltaimg.repo.repository import Repository, list_content
from deltaimg.store.interface import Store


def create_repository(
    store: Store,
    *,
    created: datetime,
    software: str,
    like: Repository | None = None,
    key: Key | None = None,
    is_padded: bool = False,
    prepare: Callable[[], None] = lambda: None,
    lock_waiting: LockWaiting | None = None,
) -> Repository:
    """Make a repository in an empty store.

    Args:
        like: in whose family the new one is to be: what is stored in either is valid in the other.
        key: encrypts it, and opens its first key slot. Made like an encrypted one, it has the secret of that.
        is_padded: what is sealed is padded, so that sizes say less of content. Needs a key.
        prepare: called once the store is known to be empty, before anything is put into it.
        lock_waiting: as of the repository; of an attempt that died the lock may be there.

    Raises:
        RepositoryExists: there is anything in the store. RepositoryLocked: another process makes a repository there.
    """
    for name in list_content(store):
        if name == CONFIG_NAME:
            raise RepositoryExists(store.location, "there is a repository already")
        # An earlier attempt may have died before it was done.
        if find_kind(name) not in (LOCK, PROBE, KEY_SLOT):
            raise RepositoryExists(store.location, f"the folder is not empty: it has '{name}'")
    assert key is not None or not is_padded
    digest_key = secrets.token_bytes(32) if like is None else like.digest_key
    secret = None if key is None else (like and like.secret) or Secret.make(digest_key)
    config = Config(
        repository_id=secrets.token_hex(16),
        created=format_time(created),
        digest_key=digest_key.hex() if secret is None else None,
        encryption=None if secret is None else "aes-256-gcm",
        padding="padme" if is_padded else None,
        software=software,
        family=None if like is None else like.config.family_id,
    )
    prepare()
    repository = Repository(store, config, secret)
    if lock_waiting is not None:
        repository.lock_waiting = lock_waiting
    with MaintenanceLock(repository, "init", created) as lock:
        for found in list(repository.objects.list(KEYS)):
            repository.objects.delete(found.name)  # of an earlier attempt, whose secret is lost
        if key is not None and secret is not None:
            # Before the config: without a slot nothing that is stored could be read again.
            slot = wrap_secret(secret, key, family_id=config.family_id, label="", created=config.created)
            repository.objects.put(KEY_SLOT, slot.object_name, slot, lock.check)
        try:
            repository.objects.put_bytes(CONFIG_NAME, [build_config(config)], lock.check)
        except ObjectExists as error:
            raise RepositoryExists(store.location, "there is a repository already") from error
    return repository
