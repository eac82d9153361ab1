# SPDX-License-Identifier: Apache-2.0
"""What is mounted and what is swapped to, from /proc (proc(5), `/proc/pid/mountinfo` and `/proc/swaps`).

Whether the kernel may write is a property of the whole file system, not of one mount: a read-only bind mount of a writable file
system does not count as read-only.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from deltaimg.image.block_devices import SYSFS, DeviceNumber, stat_quietly
from deltaimg.posix import unescape_path

PROC = Path("/proc")


class Mount(Struct, frozen=True):
    """A mounted file system: where, on which block devices, and whether it may be written to."""

    folder: str
    devices: frozenset[DeviceNumber]
    is_writable: bool


def read_mounts(proc: Path = PROC, sysfs: Path = SYSFS, process: str = "self") -> list[Mount]:
    """Return what a process sees mounted; nothing where that cannot be read."""
    try:
        lines = (proc / process / "mountinfo").read_bytes().splitlines()
    except OSError:
        return []
    return [mount for line in lines if (mount := _parse_mount(line, sysfs))]


def read_other_mounts(proc: Path = PROC, sysfs: Path = SYSFS) -> Iterator[Mount]:
    """Yield what is mounted in other mount namespaces (containers, services), as far as this user may look."""
    seen = {_find_namespace(proc / "self")}
    for folder in proc.glob("[0-9]*"):
        namespace = _find_namespace(folder)
        if namespace is not None and namespace not in seen:
            seen.add(namespace)
            yield from read_mounts(proc, sysfs, folder.name)


def read_swap_areas(proc: Path = PROC) -> list[str]:
    """Return the paths of the files and devices that are swapped to."""
    try:
        lines = (proc / "swaps").read_bytes().splitlines()[1:]
    except OSError:
        return []
    return [unescape_path(line.split()[0]) for line in lines if line.strip()]


def _find_namespace(process: Path) -> str | None:
    try:
        return os.readlink(process / "ns" / "mnt")
    except OSError:
        return None


def _parse_mount(line: bytes, sysfs: Path) -> Mount | None:
    """Read `36 35 98:0 /root /folder options optional... - type source super-options`."""
    before, _, after = line.partition(b" - ")
    fields, rest = before.split(), after.split()
    if len(fields) < 6 or len(rest) < 2:
        return None
    major, _, minor = fields[2].partition(b":")
    devices = {os.makedev(int(major), int(minor))}
    source = stat_quietly(unescape_path(rest[1])) if rest[1].startswith(b"/") else None
    if source is not None and stat.S_ISBLK(source.st_mode):
        devices.add(source.st_rdev)
    if rest[0] == b"btrfs":
        devices |= _find_btrfs_devices(devices, sysfs)
    options = rest[2].split(b",") if len(rest) > 2 else fields[5].split(b",")
    return Mount(unescape_path(fields[4]), frozenset(devices), b"ro" not in options)


def _find_btrfs_devices(known: set[DeviceNumber], sysfs: Path) -> set[DeviceNumber]:
    """Return all devices of the btrfs that has one of the known ones: mountinfo names just one of them."""
    for folder in (sysfs / "fs" / "btrfs").glob("*/devices"):
        numbers = set()
        for each in folder.iterdir():
            major, _, minor = (each.resolve() / "dev").read_text().strip().partition(":")
            numbers.add(os.makedev(int(major), int(minor)))
        if numbers & known:
            return numbers
    return set()
