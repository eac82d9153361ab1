# SPDX-License-Identifier: Apache-2.0
"""Where a disk of a running qemu is, as users write it.

qmp+unix:///drive0?socket=/run/vm1.qmp                     the disk drive0 of the qemu that listens at this monitor socket
qmp+unix:///drive0?socket=/run/vm1.qmp&scratch=/var/tmp    a folder for what the guest overwrites meanwhile
qmp+unix:///drive0?socket=/run/vm1.qmp&nbd=/run/vm1.nbd    the socket of an NBD server that it has already
"""

from __future__ import annotations

import os
import re
from urllib.parse import parse_qsl, unquote, urlsplit

from msgspec import Struct

from deltaimg.errors import UsageError

_FORM = "write qmp+unix:///DISK?socket=PATH, with &scratch=FOLDER and &nbd=PATH if need be"
_SCHEME = re.compile(r"qmp(\+[a-z]+)?:", re.IGNORECASE)
_NAMES = ("socket", "scratch", "nbd")


class MonitorAddress(Struct, frozen=True):
    """A disk of a running qemu."""

    location: str
    """As the user named it."""
    disk: str
    """The name of its node, or of its device."""
    socket_path: str
    """Of the monitor."""
    scratch_folder: str | None = None
    """None chooses one."""
    nbd_path: str | None = None
    """None starts an NBD server."""


def is_monitor_address(text: str) -> bool:
    """Return whether a text is meant to be the address of a disk of a running qemu, valid or not."""
    return _SCHEME.match(text) is not None


def find_monitor(location: str) -> str:
    """Return the path of the monitor's socket, the same for all disks of a qemu; raises UsageError."""
    return os.path.realpath(parse_monitor_address(location).socket_path)


def parse_monitor_address(location: str) -> MonitorAddress:
    """Return what an address means; raises UsageError where it is not valid."""
    try:
        url = urlsplit(location)
        found = parse_qsl(url.query, keep_blank_values=True, strict_parsing=True, errors="surrogateescape")
    except ValueError as error:
        raise UsageError(f"{location}: is no valid address", hint=_FORM) from error
    disk, given = unquote(url.path.removeprefix("/"), errors="surrogateescape"), dict(found)
    if url.scheme.lower() != "qmp+unix" or url.netloc or url.fragment or len(given) != len(found):
        raise UsageError(f"{location}: is no form of address that deltaimg knows", hint=_FORM)
    if not disk or not disk.isprintable() or not given.keys() <= set(_NAMES):
        raise UsageError(f"{location}: names no disk, or has a parameter that is not known", hint=_FORM)
    if "socket" not in given or any(not os.path.isabs(path) or "\0" in path for path in given.values()):
        raise UsageError(f"{location}: names no socket, or a path that does not begin with '/'", hint=_FORM)
    return MonitorAddress(location, disk, given["socket"], given.get("scratch"), given.get("nbd"))
