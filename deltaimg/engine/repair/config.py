# SPDX-License-Identifier: Apache-2.0
"""The `config` of a repository, from another copy: without it nothing in the repository can be read."""

from __future__ import annotations

from collections.abc import Callable

from deltaimg.engine.repair.copies import keep_what_is_replaced
from deltaimg.errors import IntegrityError, ObjectNotFound, UnsupportedFormat
from deltaimg.format.config import CONFIG_NAME, parse_config
from deltaimg.format.map import MAPS
from deltaimg.format.pack import PACKS
from deltaimg.repo.objects import Objects
from deltaimg.repo.repository import Repository
from deltaimg.store.interface import Store


def open_like(store: Store, copy: Repository) -> Repository | None:
    """Open a repository by the config of another copy of it; None where the two have no object in common.

    Names are digests of salted bytes, so that two repositories never have one in common by chance.
    """
    objects = Objects(store)
    for folder in (MAPS, PACKS):
        names = {found.name for found in copy.store.list(folder)}
        if any(found.name in names for found in objects.list(folder)):
            return Repository(objects, copy.config)
    return None


def is_config_whole(repository: Repository) -> bool:
    """Tell whether the config can be read."""
    try:
        parse_config(repository.store.get(CONFIG_NAME), CONFIG_NAME)
    except (ObjectNotFound, IntegrityError, UnsupportedFormat):
        return False
    return True


def restore_config(repository: Repository, copy: Repository, check_lock: Callable[[], None]) -> bool:
    """Put the copy's config in the place of the own one; return whether that left something in quarantine."""
    is_kept = keep_what_is_replaced(repository, CONFIG_NAME, data := copy.store.get(CONFIG_NAME))
    repository.store.replace(CONFIG_NAME, [data], check_lock)
    return is_kept
