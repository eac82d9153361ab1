# SPDX-License-Identifier: Apache-2.0
"""The `config` and the key slots of a repository, from a copy or a member of its family: without them nothing can be read."""

from __future__ import annotations

from collections.abc import Callable

from deltaimg.engine.repair.copies import keep_what_is_replaced
from deltaimg.errors import IntegrityError, ObjectNotFound, UnsupportedFormat
from deltaimg.format.config import CONFIG_NAME, build_config
from deltaimg.repo.key_slots import load_key_slots
from deltaimg.repo.object_kinds import CONFIG, KEY_SLOT
from deltaimg.repo.repository import Repository


def is_config_whole(repository: Repository) -> bool:
    """Return whether the config can be read."""
    try:
        repository.objects.get(CONFIG, CONFIG_NAME)
    except (ObjectNotFound, IntegrityError, UnsupportedFormat):
        return False
    return True


def restore_config(repository: Repository, copy: Repository, check_lock: Callable[[], None]) -> bool:
    """Store the config that the repository was opened with: the copy's, or one of the same family.

    Returns:
        whether the old one was moved to quarantine.
    """
    is_copy = repository.config.repository_id == copy.config.repository_id
    data = copy.objects.get_bytes(CONFIG_NAME) if is_copy else build_config(repository.config)
    is_kept = keep_what_is_replaced(repository, CONFIG_NAME, data)
    repository.objects.replace_bytes(CONFIG_NAME, [data], check_lock)
    return is_kept


def restore_key_slots(repository: Repository, copy: Repository, check_lock: Callable[[], None]) -> list[str]:
    """Store the key slots of a copy with the same secret where none is left, and return their names.

    One that is missing beside others may have been removed, so that whoever stole its key opens nothing any more.
    """
    if repository.secret is None or copy.secret != repository.secret or load_key_slots(repository.objects).slots:
        return []
    slots = load_key_slots(copy.objects).slots
    for slot in slots:
        repository.objects.replace(KEY_SLOT, slot.object_name, slot, check_lock)
    return [slot.object_name for slot in slots]
