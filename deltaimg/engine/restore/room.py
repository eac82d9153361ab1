# SPDX-License-Identifier: Apache-2.0
"""Whether there is room for all files of a restore, before any is written.

Where blocks are neither compressed nor shared, what does not fit by count cannot fit. Elsewhere it may, and that is warned of.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from msgspec import Struct

from deltaimg.engine.progress import Progress
from deltaimg.errors import TargetTooSmall
from deltaimg.image.allocation import reserves_blocks
from deltaimg.image.target import ImageTarget


class _FileSystem(Struct):
    """The room in a file system as files are written to it, each of which may then free what it replaces."""

    folder: str
    free_bytes: int
    is_exact: bool
    """Whether what does not fit by count cannot fit: no block is compressed or shared there."""
    needed_bytes: int = 0
    freed_bytes: int = 0
    short_bytes: int = 0

    def add(self, data_bytes: int, replaced_bytes: int) -> None:
        """Count a file that is written, and then replaces one."""
        self.needed_bytes += data_bytes
        self.short_bytes = max(self.short_bytes, self.needed_bytes - self.freed_bytes - self.free_bytes)
        self.freed_bytes += replaced_bytes


def check_room(targets: Iterable[tuple[ImageTarget, int]], progress: Progress) -> None:
    """Raise TargetTooSmall where what is to be written cannot fit; warn where it may not.

    Args:
        targets: those that are open, in the order in which they are written, and how many bytes of data each gets.
    """
    found: dict[int, _FileSystem] = {}
    for target, data_bytes in targets:
        folder, free_bytes = target.folder, target.find_free_bytes()
        if folder is None or free_bytes is None:
            continue
        device = os.stat(folder).st_dev
        if device not in found:
            found[device] = _FileSystem(folder, free_bytes, reserves_blocks(folder))
        found[device].add(data_bytes, _find_allocated(target.path))
    for system in found.values():
        if system.short_bytes <= 0:
            continue
        problem = f"{system.needed_bytes} bytes will be written, and {system.free_bytes} are free there"
        if system.is_exact:
            raise TargetTooSmall(system.folder, f"{problem}: nothing was written")
        progress.warn(f"{system.folder}: {problem}")


def _find_allocated(path: str) -> int:
    """Return how many bytes a file takes on the disk that is replaced; 0 where there is none."""
    try:
        return os.stat(path).st_blocks * 512
    except OSError:
        return 0
