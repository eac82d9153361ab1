# SPDX-License-Identifier: Apache-2.0
"""A repository of another user: that one cannot read what this user stores there, and the next run of the owner fails."""

from __future__ import annotations

import logging
import os
import stat
from contextlib import suppress
from functools import cache

from deltaimg.posix import name_user
from deltaimg.store.failures import command_to_give_back
from deltaimg.store.file_names import to_file_name

_log = logging.getLogger(__name__)
_SHARED = stat.S_ISGID | stat.S_IWGRP
_ROOT = 0


def warn_of_owner(folder: str, stored: str) -> None:
    """Warn, once, if what was just stored belongs to another user than the folder of its repository does.

    Nothing is said of a repository that a group shares, or of root's: root reads everything. A file system without owners
    gives all files the same.

    Args:
        stored: the name of the object.
    """
    with suppress(OSError):
        ours, whole = os.lstat(os.path.join(folder, to_file_name(stored))), os.stat(folder)
        if whole.st_uid not in (ours.st_uid, _ROOT) and whole.st_mode & _SHARED != _SHARED:
            _warn(folder, name_user(ours.st_uid), name_user(whole.st_uid))


@cache
def _warn(folder: str, user: str, owner: str) -> None:
    _log.warning(
        "%s belongs to %s, who cannot read what %s stores there: run as %s, or give it back afterwards by %s",
        *(folder, owner, user, owner, command_to_give_back(folder)),
    )
