# SPDX-License-Identifier: Apache-2.0
"""Which processes are dead: what a dead one left behind may be removed by others.

A process counts as dead only if the process table shows it, for processes of the same boot and the same PID namespace, and
for no others: what another host, container or boot left must be watched. Where the table cannot be read, or hides processes of
other users (hidepid), every process whose number still exists counts as alive.

A virtual machine that was copied while it ran has a twin with the same identity, and nothing in either distinguishes them. On a
store that other hosts reach, a process that is dead here must be watched for signs of life, too.
"""

from __future__ import annotations

import os
import re
import socket
from functools import cache
from hashlib import blake2b

from msgspec import Struct

from deltaimg.text import as_text

_DEAD_STATES = (b"Z", b"X")
_NAME = re.compile(r"(?P<tag>[0-9a-f]{16})-(?P<pid>[0-9]{1,10})-(?P<start>[0-9]{1,20})")


class ProcessPlace(Struct, frozen=True):
    """Where process numbers are valid."""

    host: str
    machine: str
    """`/etc/machine-id`: distinguishes hosts of one name."""
    boot_id: str
    """Empty where it is unknown, as `namespace`."""
    namespace: str
    """Of process numbers, and of the clock of start times."""

    @property
    def is_here(self) -> bool:
        """Whether the process table of this process is that of the place; never true for one that is not fully known."""
        return self == find_own_place() and bool(self.boot_id and self.namespace)

    @property
    def tag(self) -> str:
        """16 hexadecimal digits for use in file names."""
        fields = "\0".join((self.host, self.machine, self.boot_id, self.namespace))
        return blake2b(fields.encode(errors="surrogateescape"), digest_size=8).hexdigest()


def find_own_place() -> ProcessPlace:
    """Return where this process runs."""
    return _find_place(os.getpid())


def read_own_start() -> int:
    """Return when this process started, in ticks since boot; 0 if that is unknown."""
    return _read_own_start(os.getpid())


def is_dead(pid: int, start: int) -> bool:
    """Return whether the process `pid` of this place, which started at `start`, is known to have ended.

    Args:
        start: ticks since boot; 0 if unknown, and then any process of this number counts as the one asked for.
    """
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:
        pass  # It exists, and is another user's.
    found = _read_status(str(pid)) if _has_own_process_table() else None
    if found is None:
        return False
    state, threads, found_start = found
    # The first thread may be a zombie while another still finishes a system call.
    has_ended = state in _DEAD_STATES and threads <= 1
    return has_ended or (0 not in (start, found_start) and found_start != start)


def name_process(place: ProcessPlace, pid: int, start: int) -> str:
    """Return a text of lower-case letters, digits and dashes that identifies a process, for names of its temporary files."""
    return f"{place.tag}-{pid}-{start}"


def name_own_process() -> str:
    """Return what `name_process` returns of this process."""
    return name_process(find_own_place(), os.getpid(), read_own_start())


def is_of_here(name: str) -> bool:
    """Return whether `name_process` has named a process of this place so, alive or dead."""
    match, place = _NAME.fullmatch(name), find_own_place()
    return match is not None and match["tag"] == place.tag and place.is_here


def is_named_dead(name: str) -> bool:
    """Return whether the process which `name_process` has named so is known to be dead."""
    match = _NAME.fullmatch(name)
    return match is not None and is_of_here(name) and is_dead(int(match["pid"]), int(match["start"]))


@cache
def _find_place(_pid: int) -> ProcessPlace:
    # Start times are in the clock of a time namespace, which a kernel before 5.6 does not have.
    namespaces = (_read_link("/proc/self/ns/pid"), _read_link("/proc/self/ns/time"))
    return ProcessPlace(
        host=as_text(socket.gethostname()),
        machine=as_text(_read_text("/etc/machine-id")),
        boot_id=as_text(_read_text("/proc/sys/kernel/random/boot_id")),
        namespace=" ".join(filter(None, namespaces)) if namespaces[0] else "",
    )


@cache
def _read_own_start(_pid: int) -> int:
    found = _read_status("self")
    return found[2] if found else 0


def _has_own_process_table() -> bool:
    """Whether `/proc` is that of this PID namespace: a process may see one of another."""
    return _read_link("/proc/self") == str(os.getpid())


def _read_status(process: str) -> tuple[bytes, int, int] | None:
    """Return state, number of threads and start of a process, or None where it cannot be read."""
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return fields[0], int(fields[17]), int(fields[19])
    except (OSError, ValueError, IndexError):
        return None


def _read_text(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except (OSError, ValueError):
        return ""


def _read_link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
