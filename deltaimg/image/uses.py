# SPDX-License-Identifier: Apache-2.0
"""What else uses a file or block device, and might write to it.

Counted      a file system that is mounted from it or from something that lies on it (partitions, device-mapper, md, loop
             devices), swap space, anything that holds a device exclusively (O_EXCL: a mount elsewhere, ZFS, an export).
Not counted  a program that merely has it open, such as a running virtual machine, since a suspended one has it open, too.
             Whether it is locked, as qemu locks a disk for as long as it has it open, is asked of what is to be replaced.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

from msgspec import Struct

from deltaimg.errors import ImageInUse
from deltaimg.image.block_devices import (
    SYSFS,
    BlockDevice,
    DeviceNumber,
    find_block_device,
    find_loop_devices,
    identify,
)
from deltaimg.image.mounts import PROC, Mount, read_mounts, read_other_mounts, read_swap_areas

_FLOCK = struct.Struct("hhqqi4x")


class Use(Struct, frozen=True):
    """One use, in words that complete "it is ...", and whether it may write."""

    text: str
    is_writer: bool


def find_uses(descriptor: int, *, proc: Path = PROC, sysfs: Path = SYSFS) -> list[Use]:
    """Return the uses of an open file or block device, those that may write first."""
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode):
        uses = _find_file_uses(descriptor, proc, sysfs)
    elif stat.S_ISBLK(found.st_mode):
        uses = _find_device_uses(descriptor, found.st_rdev, proc, sysfs)
    else:
        uses = []
    return sorted(uses, key=lambda use: not use.is_writer)


def find_writer(descriptor: int) -> str | None:
    """Return what may write to an open file or block device, in words that complete "it is ..."; None if nothing may."""
    return next((use.text for use in find_uses(descriptor) if use.is_writer), None)


def is_locked(descriptor: int) -> bool:
    """Return whether a program has locked any part of an open file, as qemu and virtlockd do with the disks of guests."""
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, asked)
    except OSError:
        return False
    return bool(_FLOCK.unpack(found)[0] != fcntl.F_UNLCK)


def is_file_locked(path: str) -> bool:
    """Return whether a program has locked any part of the file `path`; False for whatever is no file that can be opened."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return stat.S_ISREG(os.fstat(descriptor).st_mode) and is_locked(descriptor)
    finally:
        os.close(descriptor)


def check_unused(path: str) -> None:
    """Raise ImageInUse where something would go on with a file that is about to be overwritten, or replaced by another.

    What it writes would be lost with the old file, or be mixed with the new content.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return
    try:
        identity = identify(descriptor)
        loops = find_loop_devices(identity) if identity is not None else []
        if use := find_writer(descriptor) or next((f"attached to {loop.path}" for loop in loops), None):
            raise ImageInUse(path, f"is {use}", hint="unmount or detach what uses it first")
        if is_locked(descriptor):
            hint = "end it first: it would go on with the old file, and what it writes would be lost"
            raise ImageInUse(
                path, "is locked by another program, as a running virtual machine locks its disks", hint=hint
            )
    finally:
        os.close(descriptor)


def _find_file_uses(file: str | int, proc: Path, sysfs: Path, but_for: BlockDevice | None = None) -> list[Use]:
    identity = identify(file)
    if identity is None:
        return []
    uses = [Use("used as swap space", True) for area in read_swap_areas(proc) if identify(area) == identity]
    for loop in find_loop_devices(identity, sysfs):
        if loop != but_for:
            names = {each.number: each.path for each in loop.find_above()}
            found = _find_named_uses(names, proc, sysfs)
            uses += [Use(f"attached to {loop.path}, and {use.text}", use.is_writer) for use in found]
    return uses


def _find_device_uses(descriptor: int, number: DeviceNumber, proc: Path, sysfs: Path) -> list[Use]:
    device = find_block_device(number, sysfs)
    above = device.find_above() if device else []
    names = {each.number: each.path for each in above} | {number: ""}
    if device and device.whole_disk:
        # A file system on the whole disk covers its partitions.
        names[device.whole_disk.number] = device.whole_disk.path
    uses = _find_named_uses(names, proc, sysfs)
    if device and device.backing_file is not None:
        found = _find_file_uses(device.backing_file, proc, sysfs, but_for=device)
        uses += [Use(f"backed by a file that is {use.text}", use.is_writer) for use in found]
    # Device-mapper and md hold their underlying devices, and their own uses were checked.
    if not uses and not any(each.holders for each in above) and _is_held(descriptor):
        hidden = _describe_mounts(read_other_mounts(proc, sysfs), names)
        uses = [Use(f"{use.text}, in another mount namespace", use.is_writer) for use in hidden]
        uses = uses or [Use("held by another program or by the kernel", True)]
    return uses


def _find_named_uses(names: Mapping[DeviceNumber, str], proc: Path, sysfs: Path) -> list[Use]:
    """Return the uses of some devices. `names` are theirs, empty for the one that was asked about."""
    uses = _describe_mounts(read_mounts(proc, sysfs), names)
    for kind, area in filter(None, map(identify, read_swap_areas(proc))):
        if kind == -1 and area in names:
            uses.append(Use("used as swap space" + _as_clause(names[area]), True))
    return uses


def _describe_mounts(mounts: Iterable[Mount], names: Mapping[DeviceNumber, str]) -> list[Use]:
    uses = []
    for mount in mounts:
        for number in sorted(mount.devices & names.keys())[:1]:
            how = "read-write" if mount.is_writable else "read-only"
            uses.append(Use(f"mounted {how} at {mount.folder}{_as_clause(names[number])}", mount.is_writable))
    return uses


def _as_clause(name: str) -> str:
    return f" from {name}" if name else ""


def _is_held(descriptor: int) -> bool:
    """Return whether a block device is held exclusively, as by mounts, device-mapper, md, ZFS and mkfs."""
    try:
        os.close(os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC | os.O_NONBLOCK))
    except OSError as error:
        return error.errno == errno.EBUSY
    return False
