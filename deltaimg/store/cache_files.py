# SPDX-License-Identifier: Apache-2.0
"""The files of a part of a host's cache, in folders of a folder: how they are listed, kept within a budget, and removed.

Nothing fails: other processes, and the user, may remove any of it at any time.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from contextlib import suppress

from msgspec import Struct

TOUCH_S = 3600.0
"""How exactly it is known when a file was used last."""


class CacheFile(Struct, frozen=True):
    """One of them."""

    path: str
    size_bytes: int
    """What it counts for."""
    used_s: float


def open_file(path: str, flags: int = os.O_RDONLY) -> int:
    """Return the descriptor of a file; raises OSError, also for what is no file."""
    # Not to wait for a writer if there is a pipe in its place.
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        raise OSError(errno.EINVAL, "is no regular file")
    except OSError:
        os.close(descriptor)
        raise


def list_entries(folder: str) -> list[os.DirEntry[str]]:
    """Return what the folders of a folder hold."""
    return [entry for each in _scan(folder) for entry in _scan(each.path)]


def count_bytes(files: Iterable[CacheFile]) -> int:
    """Return what files take together."""
    return sum(each.size_bytes for each in files)


def trim_files(files: Iterable[CacheFile], budget_bytes: int) -> None:
    """Remove those that were used longest ago until the others keep to a budget."""
    oldest_first = sorted(files, key=lambda each: each.used_s)
    excess = count_bytes(oldest_first) - budget_bytes
    for each in oldest_first:
        if excess <= 0:
            break
        with suppress(OSError):
            os.unlink(each.path)
        excess -= each.size_bytes


def remove_files(folder: str, files: Iterable[CacheFile]) -> int:
    """Remove files, and `folder` with its folders where nothing else is in them; return how many bytes that freed."""
    freed = 0
    for each in list(files):
        with suppress(OSError):
            os.unlink(each.path)
            freed += each.size_bytes
    for inner in _scan(folder):
        with suppress(OSError):
            os.rmdir(inner.path)
    with suppress(OSError):
        os.rmdir(folder)
    return freed


def _scan(path: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return list(entries)
    except OSError:
        return []
