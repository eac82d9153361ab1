# SPDX-License-Identifier: Apache-2.0
"""The folders of repositories on this host: nothing that a user names as a place to write to may be in one.

What replaced `config` or a pack would take snapshots with it.

Always  any repository counts, not only the one at work: by its `config`, or by its folders where that is lost.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from deltaimg.errors import UsageError
from deltaimg.format.config import CONFIG_NAME
from deltaimg.format.framing import Kind
from deltaimg.format.manifest import SNAPSHOTS
from deltaimg.format.map import MAPS
from deltaimg.format.pack import PACKS
from deltaimg.format.signature import SIGNATURES


def refuse_in_repository(path: str) -> None:
    """Raise UsageError for a file, that exists or not, in the folder of a repository, or below it."""
    absolute = os.path.abspath(path)
    # A folder of a repository may be a link to one elsewhere, and a link elsewhere may lead to one of a repository.
    for folder in dict.fromkeys((*Path(absolute).parents, *Path(os.path.realpath(absolute)).parents)):
        if _is_repository(folder):
            raise UsageError(f"{path} is in the repository {folder}", hint="name a place outside of it")


def _is_repository(folder: Path) -> bool:
    return _has_config(folder) or all(os.path.isdir(folder / name) for name in (MAPS, PACKS, SIGNATURES, SNAPSHOTS))


def _has_config(folder: Path) -> bool:
    magic = Kind.CONFIG.value
    try:
        descriptor = os.open(folder / CONFIG_NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError):
        return False
    try:
        return stat.S_ISREG(os.fstat(descriptor).st_mode) and os.pread(descriptor, len(magic), 0) == magic
    except OSError:
        return False
    finally:
        os.close(descriptor)
