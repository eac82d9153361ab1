# SPDX-License-Identifier: Apache-2.0
"""Whether a file or device was written to since some moment, as far as the kernel records it. Reading never counts.

A file      has the times of its inode: of its content (mtime), and of any change (ctime), which cannot be set back. A write
            through a memory map that began earlier may be missing from both.
A device    counts what is written and discarded through this host, in sysfs (Documentation/block/stat.rst). What waits in the
            page cache is written out first, so that it is counted. Writes of other hosts, and of this one past the device
            (straight to a disk under it), are not; nor any where `queue/iostats` is off.
A partition is also written to through the whole disk. Its own count lacks these; the disk's has them, among all others.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import Protocol

from msgspec import Struct

from deltaimg.file_status import FileStatus, read_file_status
from deltaimg.image.block_devices import BlockDevice, find_block_device, read_device_bytes

_TICK_NS = 20_000_000
_COARSE_TICK_NS = 2_000_000_000
"""Times of files are those of the kernel's last tick; some file systems only keep seconds, or even ones."""
_WRITTEN = "was written to while it was read"


class WriteWatch(Protocol):
    """Watches from when it is made on."""

    def find_change(self) -> str | None:
        """Return what happened, in words that follow a name; None if nothing did. Raises OSError."""
        ...

    def close(self) -> None:
        """Close what was opened to watch; not the descriptor."""
        ...


class FileWatch:
    """Watches a regular file by its times."""

    def __init__(self, descriptor: int, size_bytes: int) -> None:
        """Wait until a write would show in the times, if the last one was just now. Raises OSError."""
        self._descriptor, self._size_bytes = descriptor, size_bytes
        self._before = _settle(descriptor)

    def find_change(self) -> str | None:
        """Return how size or times differ from before, in words that follow a name; None if they do not. Raises OSError."""
        before, now = self._before, read_file_status(self._descriptor)
        if now.size_bytes != self._size_bytes:
            return describe_resize(self._size_bytes, now.size_bytes)
        if now.mtime_ns != before.mtime_ns:
            return _WRITTEN
        if now.ctime_ns != before.ctime_ns:
            return f"{_WRITTEN}, or its inode was changed (chmod, chown, ln, mv): its ctime moved, though its mtime did not"
        return None

    def close(self) -> None:
        """Do nothing: the descriptor belongs to the caller."""


class DeviceWatch:
    """Watches a block device by what the kernel counts, and the file behind a loop device."""

    def __init__(self, descriptor: int, size_bytes: int) -> None:
        """Raises OSError."""
        self._descriptor, self._size_bytes = descriptor, size_bytes
        self._device = find_block_device(os.fstat(descriptor).st_rdev)
        self._before = self._count()
        self._backing_file: int | None = None
        backing_path = self._device.backing_file if self._device else None
        if backing_path is not None:
            with suppress(OSError):
                self._backing_file = os.open(backing_path, os.O_PATH | os.O_CLOEXEC)
        self._backing: FileWatch | None = None
        if self._backing_file is not None:
            self._backing = FileWatch(self._backing_file, os.fstat(self._backing_file).st_size)

    def find_change(self) -> str | None:
        """Return how size or counters differ from before, or the file under a loop device; None if they do not."""
        size_bytes = read_device_bytes(self._descriptor)
        if size_bytes != self._size_bytes:
            return describe_resize(self._size_bytes, size_bytes)
        if self._count().exceeds(self._before):
            return _WRITTEN
        change = self._backing.find_change() if self._backing else None
        return None if change is None else f"lies on a file that {change}"

    def close(self) -> None:
        """Close the file behind a loop device."""
        if self._backing_file is not None:
            os.close(self._backing_file)
            self._backing_file = self._backing = None

    def _count(self) -> _Count:
        with suppress(OSError):
            os.fsync(self._descriptor)
        return _count_writes(self._device)


class _Count(Struct, frozen=True):
    """Sectors written to a device; and to its disk but not through a partition, at least and at most."""

    own: int = 0
    partitions: frozenset[BlockDevice] = frozenset()
    least: int = 0
    most: int = 0

    def exceeds(self, before: _Count) -> bool:
        """Return whether something was certainly written since. Partitions that came or went make the disk's count unusable."""
        return self.own != before.own or (self.partitions == before.partitions and self.least > before.most)


def describe_resize(old_bytes: int, new_bytes: int) -> str:
    """Return what happened to something that now has another size, in words that follow its name."""
    return f"changed its size while it was read, from {old_bytes} to {new_bytes} bytes"


def _count_writes(device: BlockDevice | None) -> _Count:
    if device is None:
        return _Count()
    own, disk = _read_sectors(device), device.whole_disk
    if disk is None:
        return _Count(own)
    # Partitions are written to while these are read one after another: the truth lies between two sums.
    partitions = disk.partitions
    sums = [sum(_read_sectors(each) for each in devices) for devices in (partitions, [disk], partitions)]
    return _Count(own, frozenset(partitions), sums[1] - sums[2], sums[1] - sums[0])


def _read_sectors(device: BlockDevice) -> int:
    """Return how many sectors were written and discarded; 0 where that cannot be read. A flush counts as a write of none."""
    try:
        fields = (device.folder / "stat").read_text().split()
    except OSError:
        return 0
    return sum(int(fields[place]) for place in (6, 13) if place < len(fields))


def _settle(descriptor: int) -> FileStatus:
    """Return the status of a file, once its last change is so long ago that another would get another time."""
    status = read_file_status(descriptor)
    tick_ns = _TICK_NS if status.ctime_ns % 10**9 else _COARSE_TICK_NS
    age_ns = time.time_ns() - status.ctime_ns
    if abs(age_ns) < tick_ns:
        time.sleep((tick_ns - age_ns) / 1e9)
        status = read_file_status(descriptor)
    return status
