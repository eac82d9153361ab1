# SPDX-License-Identifier: Apache-2.0
"""What a running qemu says of itself and of a disk: whether it can be frozen, its size, its dirty bitmaps."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from typing import Any, Final

from msgspec import Struct

from deltaimg.errors import FreezeFailed
from deltaimg.image.qemu.address import MonitorAddress, parse_monitor_address
from deltaimg.image.qemu.bitmaps import FileBitmap
from deltaimg.image.qemu.monitor import Monitor, MonitorFailure

_SAFE_VERSION: Final = 9
_SHOWN_DISKS: Final = 10


class LiveDisk(Struct, frozen=True):
    """A disk of a guest."""

    node: str
    size_bytes: int
    is_qcow2: bool
    folder: str
    """Of its file; a usual one for temporary files where it is no file."""
    bitmaps: tuple[dict[str, Any], ...]
    """As qemu describes them: those that have a name."""

    def describe_bitmaps(self) -> list[FileBitmap]:
        """Return them, and why those that say nothing do not."""
        return [FileBitmap(each["name"], _find_problem(each)) for each in self.bitmaps]

    def granularity(self, bitmap: str) -> int:
        """Return how many bytes a bit of one of them stands for."""
        return next(int(each["granularity"]) for each in self.bitmaps if each["name"] == bitmap)


def examine_disk(path: str) -> LiveDisk:
    """Return the disk at an address; raises FreezeFailed unless its qemu can be asked and can freeze it, and UsageError."""
    address = parse_monitor_address(path)
    try:
        with closing(Monitor(address.socket_path)) as monitor:
            check_threads(monitor)
            return find_disk(monitor, address)
    except MonitorFailure as failure:
        raise FreezeFailed(path, str(failure)) from failure


def check_threads(monitor: Monitor) -> None:
    """Raise MonitorFailure for a qemu that could not survive the end of an export.

    The repair of CVE-2024-7409, which distributions have added to qemu before version 9 as well, expects that the client of an
    export is closed by the main thread. There it is closed by that of the disk: an assertion ends qemu, and its guest with it.
    """
    version = monitor.execute("query-version")["qemu"]
    has_objects = any(each["name"] == "objects" for each in monitor.execute("qom-list", path="/"))
    objects = monitor.execute("qom-list", path="/objects") if has_objects else []
    has_threads = any(each["type"] == "child<iothread>" for each in objects)
    if has_threads and int(version["major"]) < _SAFE_VERSION:
        shown = f"{version['major']}.{version['minor']}"
        raise MonitorFailure(
            f"qemu {shown} has I/O threads, and could end with its guest after the backup; 9.0 could not"
        )


def find_disk(monitor: Monitor, address: MonitorAddress) -> LiveDisk:
    """Return the disk that an address names, by its node or its device; raises MonitorFailure."""
    nodes = {each["node-name"]: each for each in monitor.execute("query-named-block-nodes")}
    name = address.disk
    if name not in nodes:
        for each in monitor.execute("query-block"):
            if name in (each.get("device"), each.get("qdev")) and "inserted" in each:
                name = each["inserted"].get("node-name")
    if name not in nodes:
        known = ", ".join(sorted(each for each in nodes if not each.startswith(("#", "dimg-")))[:_SHOWN_DISKS])
        raise MonitorFailure(f"that qemu has no disk '{address.disk}'" + (f", but {known}" if known else ""))
    node = nodes[name]
    file = str(node.get("file", ""))
    is_file = os.path.isabs(file) and os.path.isfile(file)
    return LiveDisk(
        name,
        int(node["image"]["virtual-size"]),
        node.get("drv") == "qcow2",
        os.path.dirname(file) if is_file else "/var/tmp",  # noqa: S108  the file has a name for a moment only, and O_EXCL
        tuple(each for each in node.get("dirty-bitmaps", []) if each.get("name")),
    )


def check_distinct(addresses: Sequence[MonitorAddress], disks: Sequence[LiveDisk]) -> None:
    """Raise MonitorFailure where two addresses name the same disk."""
    names: dict[str, str] = {}
    for address, disk in zip(addresses, disks, strict=True):
        if disk.node in names:
            raise MonitorFailure(f"'{names[disk.node]}' and '{address.disk}' are the same disk")
        names[disk.node] = address.disk


def _find_problem(found: dict[str, Any]) -> str:
    """Return why a bitmap says nothing, in words that follow its name; empty if it is in order."""
    if found.get("inconsistent"):
        return "was not stored: a qemu that had the file open did not end well"
    if found.get("busy"):
        return "is used by another job of qemu"
    return "" if found.get("recording") else "records nothing: another program has disabled it"
