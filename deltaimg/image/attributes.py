# SPDX-License-Identifier: Apache-2.0
"""What a file that is replaced passes on to the new one.

Owner, group, mode, access control list, extended attributes, and btrfs's NOCOW flag.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from contextlib import suppress

_GET_FLAGS, _SET_FLAGS, _NOCOW = 0x80086601, 0x40086602, 0x00800000
_ACL = "system.posix_acl_access"
_OF_THE_OLD_CONTENT = ("security.ima", "security.evm", "security.capability", "trusted.overlay.")


def copy_flags(old: str, descriptor: int) -> None:
    """Make btrfs overwrite a new, empty file in place, if the old one is set so (`chattr +C`, usual for virtual machines)."""
    with suppress(OSError):
        other = os.open(old, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            if _read_flags(other) & _NOCOW:
                flags = _read_flags(descriptor) | _NOCOW
                fcntl.ioctl(descriptor, _SET_FLAGS, struct.pack("=q", flags))
        finally:
            os.close(other)


def copy_attributes(old: str, descriptor: int) -> list[str]:
    """Give an open file the attributes of the one at `old`; return what could not be kept, in words.

    Raises:
        OSError: the attributes of `old` cannot be read.
    """
    wanted = os.stat(old, follow_symlinks=False)
    lost = []
    if not _change_owner(descriptor, wanted.st_uid, wanted.st_gid):
        lost.append(f"owner {wanted.st_uid} and group {wanted.st_gid}")
    found = os.fstat(descriptor)
    is_same_owner = (found.st_uid, found.st_gid) == (wanted.st_uid, wanted.st_gid)
    os.fchmod(descriptor, wanted.st_mode & (0o7777 if is_same_owner else 0o777))
    return lost + _copy_extended(old, descriptor)


def _change_owner(descriptor: int, owner: int, group: int) -> bool:
    """Set owner and group, or at least the group; return whether both are right."""
    with suppress(PermissionError):
        os.fchown(descriptor, owner, group)
        return True
    with suppress(PermissionError):
        os.fchown(descriptor, -1, group)
    return False


def _copy_extended(old: str, descriptor: int) -> list[str]:
    """Copy extended attributes, and take away an access control list that only the new file got from its folder."""
    try:
        names = os.listxattr(old, follow_symlinks=False)
    except OSError:
        return []
    lost = []
    for name in names:
        if name.startswith(_OF_THE_OLD_CONTENT):
            continue
        try:
            os.setxattr(descriptor, name, os.getxattr(old, name, follow_symlinks=False))
        except OSError as error:
            if error.errno != errno.ENODATA:
                lost.append(f"the extended attribute {name}")
    if _ACL not in names:
        with suppress(OSError):
            os.removexattr(descriptor, _ACL)
    return lost


def _read_flags(descriptor: int) -> int:
    # Declared as a long, and written as an int.
    return int(struct.unpack_from("=i", fcntl.ioctl(descriptor, _GET_FLAGS, bytes(8)))[0])
