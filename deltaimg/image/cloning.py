# SPDX-License-Identifier: Apache-2.0
"""Clones: files that share the blocks of another one, on XFS, btrfs, and network file systems that pass it on.

Source  ioctl_ficlone(2).
"""

from __future__ import annotations

import fcntl

from deltaimg.image.attributes import copy_flags

_FICLONE = 0x40049409


def clone_content(path: str, source: int, target: int) -> None:
    """Let a new, empty file share the content of another; raises OSError where its file system cannot.

    Args:
        path: of the other file. source, target: descriptors of that and of the new one.
    """
    copy_flags(path, target)
    fcntl.ioctl(target, _FICLONE, source)
