# SPDX-License-Identifier: Apache-2.0
"""The `config` of a repository, from another copy or a member of its family: without it nothing can be read."""

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
    if repository.secret is not None and not load_key_slots(repository.objects).slots:
        # They were lost with the config, and without one of them it could not be opened.
        for slot in load_key_slots(copy.objects).slots:
            repository.objects.replace(KEY_SLOT, slot.object_name, slot, check_lock)
    repository.objects.replace_bytes(CONFIG_NAME, [data], check_lock)
    return is_kept
