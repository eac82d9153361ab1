# SPDX-License-Identifier: Apache-2.0
"""How much memory may be used for data whose size a store decides: a bound that is checked before anything is allocated.

A few bytes of a store can expand to much. Code that builds a structure of such a size checks it here first, so that an
absurd object ends in an error that names it, and not in the machine's running out of memory.

Always  the bound is for each such structure by itself: one map's runs, the index, the digests of a snapshot. Half of the memory
        that the process may have, or what `DELTAIMG_METADATA_MEMORY` says, in bytes or as `4G`.
"""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from deltaimg.errors import MemoryLimitReached, UsageError

SETTING = "DELTAIMG_METADATA_MEMORY"
_SHARE = 2
"""The memory of the process is divided by this: a verb keeps an index and a snapshot at a time, and copies neither."""
_SIZE = re.compile(r"([0-9]{1,15})([KMGT]?)", re.ASCII)


def check_room(name: str, needed_bytes: int) -> None:
    """Raise MemoryLimitReached where the object `name` would need more memory than there may be for it."""
    if needed_bytes > (limit := limit_bytes()):
        raise MemoryLimitReached(name, needed_bytes, limit)


def limit_bytes() -> int:
    """Return how many bytes a structure may take whose size a store decides; raises UsageError for a setting that is none."""
    setting = os.environ.get(SETTING)
    if not setting:
        return _default_bytes()
    match = _SIZE.fullmatch(setting.strip().upper())
    if match is None:
        raise UsageError(f"{SETTING} is '{setting[:60]}'", hint="write 500M, 4G or the like, or unset it")
    return int(match[1]) << 10 * " KMGT".index(match[2] or " ")


def page_cache_bytes() -> int:
    """Return how much of files the system can keep in memory for this process now, about."""
    return min((_free_bytes(), *_group_limits()))


def _free_bytes(path: Path = Path("/proc/meminfo")) -> int:
    """Return what the machine has free, or could free without paging; half of its memory where it does not say."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB$", path.read_text(), re.MULTILINE)
    except OSError:
        found = None
    return int(found[1]) << 10 if found else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


@cache
def _default_bytes() -> int:
    return min(_available_bytes()) // _SHARE


def _available_bytes() -> Iterator[int]:
    """Yield the limits of this process's memory: the machine, the control groups, the resource limits."""
    yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    yield from _group_limits()
    for limit in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        soft, _ = resource.getrlimit(limit)
        if soft != resource.RLIM_INFINITY:
            yield max(0, soft - _address_space_bytes())


def _address_space_bytes() -> int:
    """Return what the process has mapped already, libraries included."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _group_limits(root: Path = Path("/sys/fs/cgroup"), groups: Path = Path("/proc/self/cgroup")) -> Iterator[int]:
    """Yield the limits of the control groups that the process is in, of either version; none where there are no groups."""
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top, file = (root / "memory", "memory.limit_in_bytes") if controllers else (root, "memory.max")
        # In a container its own group may be the top, whatever the path outside is.
        folder = top / path.lstrip("/")
        for each in (folder, *folder.parents):
            yield from _read_limit(each / file)
            if each == top:
                break


def _read_limit(path: Path) -> Iterator[int]:
    try:
        text = path.read_text().strip()
    except OSError:
        return
    if text.isdigit():
        yield int(text)
