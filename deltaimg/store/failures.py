# SPDX-License-Identifier: Apache-2.0
"""What the operating system says of a file, as an error of the store."""

from __future__ import annotations

import errno
import os
import re

from deltaimg.errors import NameNotKept, PermissionDenied, StoreError, StoreFull, StoreUnavailable

_NAME_FAULTS = {errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG}
"""What file systems say of a name that they cannot keep."""
_PERHAPS_NAME_FAULTS = {errno.EPERM, errno.EACCES, errno.ENOENT}
"""What some say of one with `:` or `?` in it; others mean what they say."""
_KEPT_EVERYWHERE = re.compile(r"[A-Za-z0-9._-]*[A-Za-z0-9_-]")
_IN_THE_WAY = {errno.EISDIR, errno.ENOTDIR, errno.ELOOP}


def translate(location: str, name: str, error: OSError) -> StoreError:
    """Return the error for object `name` of the store at `location` of which the system says `error`."""
    what = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(name, f"cannot be stored in {location}: {what}")
    if error.errno == errno.EROFS:
        return PermissionDenied(name, f"{location} is mounted read-only", hint="mount it so that it can be written to")
    if error.errno in (errno.EACCES, errno.EPERM):
        return PermissionDenied(name, f"{location} refuses: {what}", hint="check owner and mode of the repository")
    if error.errno in _IN_THE_WAY:
        return StoreError(name, f"something else of this name is in the way: {what}", hint="move it elsewhere")
    if error.errno == errno.ENAMETOOLONG:
        return StoreError(name, f"no object can have this name: {what}")
    return StoreUnavailable(name, f"{location} fails: {what}")


def dangling_link(name: str, path: str) -> StoreUnavailable:
    """Return the error for a folder that is a link to a place that is not there."""
    problem = f"is a link to {os.readlink(path)}, which is not there"
    return StoreUnavailable(name, problem, hint="mount the disk that it leads to")


def is_name_fault(error: OSError, file_name: str, *, is_folder_fine: bool) -> bool:
    """Tell whether it is for its name that a file could not be made.

    Args:
        is_folder_fine: whether another file could be made in the same folder just before.
    """
    if error.errno in _NAME_FAULTS:
        return True
    return is_folder_fine and error.errno in _PERHAPS_NAME_FAULTS and not _KEPT_EVERYWHERE.fullmatch(file_name)


def name_refused(location: str, name: str, error: OSError) -> NameNotKept:
    """Return the error for a name that the file system cannot keep."""
    what = os.strerror(error.errno or 0)
    return NameNotKept(name, f"the file system of {location} cannot keep this name: {what}")


def name_folded(location: str, name: str, other: str) -> NameNotKept:
    """Return the error for a name that the file system takes for another one."""
    return NameNotKept(name, f"the file system of {location} takes this name for '{other}'")
