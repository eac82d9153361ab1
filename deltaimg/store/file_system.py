# SPDX-License-Identifier: Apache-2.0
"""The file system that a path is on, as far as it matters to a store."""

from __future__ import annotations

import os

from deltaimg.posix import unescape_path

_ON_ONE_HOST = {
    "bcachefs",
    "btrfs",
    "exfat",
    "ext2",
    "ext3",
    "ext4",
    "f2fs",
    "jfs",
    "msdos",
    "ntfs3",
    "overlay",
    "ramfs",
}
_ON_ONE_HOST |= {"reiserfs", "tmpfs", "vfat", "xfs", "zfs"}
"""Types that one kernel mounts at a time. Network, cluster and FUSE file systems, 9p and virtiofs may be shared by hosts."""


def is_on_one_host(path: str) -> bool:
    """Return whether only this host can have mounted the file system that `path` is on; False where that is unknown.

    It may be exported to others, who then reach it through this host.
    """
    return find_type(os.path.realpath(path)) in _ON_ONE_HOST


def find_type(path: str) -> str:
    """Return the type of the file system of an absolute path without links, or nothing if it is unknown."""
    found, longest = "", -1
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return ""
    for line in lines:
        fields, _, rest = line.partition(b" - ")
        mount_point = unescape_path(fields.split()[4])
        is_over = mount_point == "/" or path == mount_point or path.startswith(f"{mount_point}/")
        # Of mounts over one another, the last one is seen.
        if is_over and len(mount_point) >= longest:
            found, longest = os.fsdecode(rest.split()[0]), len(mount_point)
    return found
