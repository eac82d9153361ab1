# SPDX-License-Identifier: Apache-2.0
"""What the operating system says of a file, as an error of the store."""

from __future__ import annotations

import errno
import os
import re
import shlex
import stat
from contextlib import suppress

from deltaimg.errors import NameNotKept, PermissionDenied, StoreError, StoreFull, StoreUnavailable
from deltaimg.posix import name_user

_NAME_FAULTS = {errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG}
"""What file systems say of a name that they cannot keep."""
_PERHAPS_NAME_FAULTS = {errno.EPERM, errno.EACCES, errno.ENOENT}
"""What some say of one with `:` or `?` in it; others mean what they say."""
_KEPT_EVERYWHERE = re.compile(r"[A-Za-z0-9._-]*[A-Za-z0-9_-]")
_GONE = {errno.ENOTCONN, errno.ESTALE, errno.EHOSTDOWN, errno.ENODEV, errno.ENXIO}
"""Of a mount whose server, process or device went away."""
_IN_THE_WAY = {errno.EISDIR, errno.ENOTDIR, errno.ELOOP}


def translate(location: str, name: str, error: OSError) -> StoreError:
    """Return the error for object `name` of the store at `location` of which the system says `error`."""
    what = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(name, f"cannot be stored in {location}: {what}")
    if error.errno == errno.EROFS:
        return PermissionDenied(
            location,
            "its file system is mounted read-only",
            hint="mount it for writing; if it was, dmesg says why it no longer is",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        place = _find_refusing(_find_place(location, name, error))
        return PermissionDenied(place, what[:1].lower() + what[1:], hint=_explain_refusal(location, place))
    if error.errno in _GONE:
        return StoreUnavailable(name, f"{location} fails: {what}", hint="unmount it and mount it again")
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
    """Return whether it is for its name that a file could not be made.

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


def _find_place(location: str, name: str, error: OSError) -> str:
    """Return what was refused: an object of the store, or a folder that was listed on the way to all of them."""
    root = os.path.abspath(location)
    if isinstance(error.filename, str) and error.filename.startswith(f"{root}/"):
        return os.path.join(location, os.path.relpath(error.filename, root))
    return os.path.join(location, name) if name else location


def _find_refusing(path: str) -> str:
    """Return the topmost folder on the way to `path` that this user may not enter; else what is there of the path."""
    pieces = path.split("/")
    for count in range(1, len(pieces)):
        folder = "/".join(pieces[:count]) or "/"
        if os.path.isdir(folder) and not os.access(folder, os.X_OK, effective_ids=True):
            return folder
    return path if os.path.lexists(path) else os.path.dirname(path) or path


def _explain_refusal(location: str, path: str) -> str:
    """Return whose a file is that this user may not use, and what can be done."""
    with suppress(OSError):
        found = os.stat(path)
        whose = f"it belongs to {name_user(found.st_uid)}, with mode {stat.S_IMODE(found.st_mode):03o}"
        with suppress(OSError):
            if os.stat(location).st_uid == os.geteuid() != found.st_uid:
                return f"{whose}; root gives it back by {command_to_give_back(location)}"
        return f"{whose}; 'deltaimg init --group' makes repositories that a group shares"
    return "check owner and mode of the repository"


def command_to_give_back(folder: str) -> str:
    """Return the command that gives all of a store to whom its folder belongs."""
    named = shlex.quote(folder)
    return f"'chown -R --reference={named} {named}'"
