# SPDX-License-Identifier: Apache-2.0
"""Undo what runs have begun in a running qemu: their own at the end, and what is left of those that died.

exports, then jobs    so that nothing is read from when old content is no longer kept
NBD server            if it was started for the run
nodes                 last: the file of a disk's scratch node says which process has made it, and so the rest
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Final

from msgspec import Struct

from deltaimg.freeze.owner import is_left_over
from deltaimg.freeze.qmp_disk import find_disk
from deltaimg.image.qemu.address import MonitorAddress
from deltaimg.image.qemu.monitor import Monitor, MonitorFailure

_WAIT_S: Final = 20.0
_PAUSE_S: Final = 0.005
_TAG: Final = re.compile(r"dimg-(?P<tag>[0-9a-f]{8})-file")
_SCRATCH_END: Final = ".scratch"
_SERVER: Final = ".dimg-{tag}.nbd"
"""A socket's path has 107 bytes at most, which leaves no room for the name of a process."""
_SERVER_NAME: Final = re.compile(r"\.dimg-(?P<tag>[0-9a-f]{8})\.nbd")


class Part(Struct, frozen=True):
    """What a run begins for one disk, by its names."""

    owner: str
    """The process, as `owner.name_owner` has it."""
    tag: str

    @property
    def name(self) -> str:
        """Of job and export."""
        return f"{self.owner}-{self.tag}"

    @property
    def scratch(self) -> str:
        """The name of the scratch file."""
        return f".{self.name}{_SCRATCH_END}"

    @property
    def file(self) -> str:
        """The node of the scratch file."""
        return f"dimg-{self.tag}-file"

    @property
    def overlay(self) -> str:
        """The node of the overlay that is read."""
        return f"dimg-{self.tag}-disk"

    @property
    def server(self) -> str:
        """The name of the socket of an NBD server that was started for a run whose first disk this is."""
        return _SERVER.format(tag=self.tag)


def undo(monitor: Monitor, parts: Sequence[Part], folder: str) -> None:
    """Undo what was begun for some disks, as far as it came. Nothing is raised.

    Args:
        folder: where the socket of an NBD server is that was started for them.
    """
    for each in parts:
        end_job(monitor, each.name)
    for each in parts:
        server = os.path.join(folder, each.server)
        if os.path.lexists(server):
            with suppress(MonitorFailure):
                monitor.execute("nbd-server-stop")
            with suppress(OSError):
                os.unlink(server)
    for each in parts:
        for node in (each.overlay, each.file):
            with suppress(MonitorFailure):
                monitor.execute("blockdev-del", node_name=node)


def end_job(monitor: Monitor, name: str) -> None:
    """End the export first, so that nothing is read from then on, and then the job; wait for each. Nothing is raised."""
    for query, command, arguments in (
        ("query-block-exports", "block-export-del", {"mode": "hard"}),
        ("query-jobs", "job-cancel", {}),
    ):
        deadline_s = time.monotonic() + _WAIT_S
        while _has(monitor, query, name) and time.monotonic() < deadline_s:
            with suppress(MonitorFailure):
                monitor.execute(command, id=name, **arguments)
            time.sleep(_PAUSE_S)


def undo_leftovers(monitor: Monitor, addresses: Sequence[MonitorAddress]) -> Iterator[str]:
    """Undo what dead processes have begun in a qemu, and yield the names of it; raises MonitorFailure.

    Args:
        addresses: disks of that qemu.
    """
    folder, tags, dead = os.path.dirname(addresses[0].socket_path), set(), []
    for node in monitor.execute("query-named-block-nodes"):
        match = _TAG.fullmatch(node["node-name"])
        if match is None:
            continue
        tags.add(match["tag"])
        name = os.path.basename(str(node.get("file", ""))).removesuffix(_SCRATCH_END)[1:]
        if name.endswith(f"-{match['tag']}") and is_left_over(name):
            dead.append(Part(name.removesuffix(f"-{match['tag']}"), match["tag"]))
    undo(monitor, dead, folder)
    yield from (each.name for each in dead)
    _remove_scratch({each.scratch_folder or find_disk(monitor, each).folder for each in addresses})
    yield from _remove_sockets(folder, tags)


def _has(monitor: Monitor, query: str, subject: str) -> bool:
    """Return whether a qemu has an export or a job; not, where it cannot be asked."""
    with suppress(MonitorFailure):
        return any(each["id"] == subject for each in monitor.execute(query))
    return False


def _remove_scratch(folders: Iterable[str]) -> None:
    """Remove scratch files of dead processes that no qemu has opened yet."""
    for folder in folders:
        with suppress(OSError):
            for name in os.listdir(folder):
                if name.endswith(_SCRATCH_END) and is_left_over(name[1:]):
                    os.unlink(os.path.join(folder, name))


def _remove_sockets(folder: str, tags: set[str]) -> Iterator[str]:
    """Remove the sockets of NBD servers that ended with their qemu, and yield their names; those of `tags` are in use."""
    with suppress(OSError):
        for name in os.listdir(folder):
            match = _SERVER_NAME.fullmatch(name)
            if match is not None and match["tag"] not in tags and _is_refused(os.path.join(folder, name)):
                os.unlink(os.path.join(folder, name))
                yield name


def _is_refused(path: str) -> bool:
    """Return whether nothing listens at a socket any more."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as trial:
        trial.settimeout(1)
        try:
            trial.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            pass
    return False
