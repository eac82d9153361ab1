# SPDX-License-Identifier: Apache-2.0
"""A block device as the kernel describes it: size and sectors, name, what it lies on and what lies on it.

Reads  the device by ioctl, and sysfs: `/sys/dev/block/MAJOR:MINOR` with `holders/`, `slaves/`, `partition`, `loop/`, `dm/`
       (Documentation/ABI/stable/sysfs-block). Where sysfs is not mounted, a device simply has no relations.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct

BLKGETSIZE64 = 0x80081272
BLKSSZGET = 0x1268
SYSFS = Path("/sys")

DeviceNumber = int
"""Major and minor number as `st_rdev` has them."""
Identity = tuple[int, int]
"""Of a regular file its file system and inode number; of a block device -1 and its number."""


def read_device_bytes(descriptor: int) -> int:
    """Return the size of an open block device; raises OSError."""
    return int(struct.unpack("=Q", fcntl.ioctl(descriptor, BLKGETSIZE64, bytes(8)))[0])


def read_sector_bytes(descriptor: int) -> int:
    """Return the logical sector size of an open block device; raises OSError."""
    return int(struct.unpack("=i", fcntl.ioctl(descriptor, BLKSSZGET, bytes(4)))[0])


class BlockDevice(Struct, frozen=True):
    """A device as sysfs has it, in the folder `/sys/devices/.../block/NAME`."""

    folder: Path

    @property
    def number(self) -> DeviceNumber:
        """Raises OSError where the device has gone."""
        major, _, minor = (self.folder / "dev").read_text().strip().partition(":")
        return os.makedev(int(major), int(minor))

    @property
    def path(self) -> str:
        """Return its usual name: `/dev/mapper/vg0-vm1`, `/dev/sda1`."""
        mapped = _read(self.folder / "dm" / "name")
        return f"/dev/mapper/{mapped}" if mapped else f"/dev/{self.folder.name.replace('!', '/')}"

    @property
    def backing_file(self) -> str | None:
        """The file behind a loop device."""
        return _read(self.folder / "loop" / "backing_file")

    @property
    def whole_disk(self) -> BlockDevice | None:
        """The disk that a partition is a part of; None for all else."""
        return BlockDevice(self.folder.parent) if (self.folder / "partition").exists() else None

    @property
    def partitions(self) -> list[BlockDevice]:
        """The partitions that the kernel has of a disk."""
        return [BlockDevice(each.parent) for each in sorted(self.folder.glob("*/partition"))]

    @property
    def holders(self) -> list[BlockDevice]:
        """Devices of device-mapper, md and the like that lie on it directly."""
        return _follow_links(self.folder / "holders")

    @property
    def slaves(self) -> list[BlockDevice]:
        """Devices that it lies on directly."""
        return _follow_links(self.folder / "slaves")

    def find_above(self) -> list[BlockDevice]:
        """Return the device, its partitions, and whatever lies on any of these, each once."""
        return list(_walk(self, lambda each: [*each.partitions, *each.holders, *find_loop_devices((-1, each.number))]))

    def find_below(self) -> list[BlockDevice]:
        """Return the device, the disk that it is a part of, and whatever these lie on, each once."""
        return list(_walk(self, lambda each: [*filter(None, [each.whole_disk]), *each.slaves]))


def find_block_device(number: DeviceNumber, sysfs: Path = SYSFS) -> BlockDevice | None:
    """Return the device with this number; None where sysfs does not have it."""
    link = sysfs / "dev" / "block" / f"{os.major(number)}:{os.minor(number)}"
    try:
        return BlockDevice(link.resolve(strict=True))
    except (OSError, RuntimeError):
        return None


def find_loop_devices(backing: Identity, sysfs: Path = SYSFS) -> list[BlockDevice]:
    """Return the loop devices that a file or block device is attached to."""
    entries = sorted((sysfs / "block").glob("loop*/loop/backing_file"))
    loops = [BlockDevice(entry.parents[1].resolve()) for entry in entries]
    return [loop for loop in loops if loop.backing_file is not None and identify(loop.backing_file) == backing]


def identify(path: str | int) -> Identity | None:
    """Return what identifies the file or block device that a path or descriptor names, links followed; None for all else."""
    found = stat_quietly(path)
    if found is None:
        return None
    if stat.S_ISREG(found.st_mode):
        return (found.st_dev, found.st_ino)
    return (-1, found.st_rdev) if stat.S_ISBLK(found.st_mode) else None


def find_storage(path: str | int, sysfs: Path = SYSFS) -> set[Identity]:
    """Return a file or block device and what its bytes lie on: a loop device's file, a partition's disk, a volume's disks."""
    identity = identify(path)
    if identity is None:
        return set()
    storage = {identity}
    device = find_block_device(identity[1], sysfs) if identity[0] == -1 else None
    for each in device.find_below() if device else ():
        storage.add((-1, each.number))
        if each.backing_file is not None:
            storage |= find_storage(each.backing_file, sysfs)
    return storage


def share_storage(first: str | int, second: str | int) -> bool:
    """Return whether one of two files or devices is the other, or lies on it. Two partitions of a disk share nothing."""
    return identify(first) in find_storage(second) or identify(second) in find_storage(first)


def stat_quietly(path: str | int | None) -> os.stat_result | None:
    """Return what a path names, links followed; None where that is not known."""
    try:
        return None if path is None else os.stat(path)
    except (OSError, ValueError):
        return None


def _walk(start: BlockDevice, find_next: Callable[[BlockDevice], list[BlockDevice]]) -> Iterator[BlockDevice]:
    waiting, seen = [start], set[BlockDevice]()
    while waiting:
        device = waiting.pop()
        if device not in seen:
            seen.add(device)
            yield device
            waiting += find_next(device)


def _follow_links(folder: Path) -> list[BlockDevice]:
    try:
        return [BlockDevice(each.resolve()) for each in sorted(folder.iterdir())]
    except OSError:
        return []


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="surrogateescape").rstrip("\n") or None
    except OSError:
        return None
