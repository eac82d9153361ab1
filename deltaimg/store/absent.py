# SPDX-License-Identifier: Apache-2.0
"""Why a folder may not be where it is looked for: its disk is not mounted."""

from __future__ import annotations

import os
from contextlib import suppress

from deltaimg.posix import unescape_path

_FSTAB, _MOUNTS = "/etc/fstab", "/proc/self/mountinfo"
_FOR_MOUNTS = ("/mnt/", "/media/", "/run/media/", "/Volumes/")


def explain_absence(path: str) -> str | None:
    """Return a hint for the user, if the disk below `path` may not be mounted."""
    path = os.path.abspath(path)
    unmounted = find_unmounted(path)
    if unmounted is not None:
        return f"{unmounted} is in {_FSTAB} and is not mounted: 'mount {unmounted}'"
    there = _find_existing(path)
    if os.path.islink(there):
        return f"{there} is a link to {os.readlink(there)}, which is not there: is its disk mounted?"
    if path.startswith(_FOR_MOUNTS) or (there != "/" and _is_empty(there)):
        return f"is the disk at {there} mounted?"
    return None


def find_unmounted(path: str) -> str | None:
    """Return the deepest mount point on the way to `path` that the system's table lists and where nothing is mounted."""
    path = os.path.abspath(path)
    mounted = set(_read_column(_MOUNTS, 4))
    listed = [each for each in _read_column(_FSTAB, 1) if each not in mounted and each != "/"]
    on_the_way = [each for each in listed if path == each or path.startswith(f"{each.rstrip('/')}/")]
    return max(on_the_way, key=len, default=None)


def _read_column(table: str, column: int) -> list[str]:
    """Return a column of paths; nothing where there is no such table."""
    paths = []
    with suppress(OSError), open(table, "rb") as lines:
        for line in lines:
            fields = line.split()
            if len(fields) > column and not line.lstrip().startswith(b"#") and fields[column].startswith(b"/"):
                paths.append(unescape_path(fields[column]))
    return paths


def _find_existing(path: str) -> str:
    """Return `path`, or the nearest folder above it that is there; a link that leads nowhere is there."""
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return path


def _is_empty(folder: str) -> bool:
    with suppress(OSError):
        return not os.listdir(folder)
    return False
