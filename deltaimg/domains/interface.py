# SPDX-License-Identifier: Apache-2.0
"""What is read of a guest's configuration, whichever hypervisor wrote it, and which of its disks are backed up.

Left out are: what `--exclude-disk` names, what has a name that begins with `[NOBAK]`, CD-ROMs and floppies, removable disks,
read-only disks that several guests share, and a second mention of the same path. All others must be on this host: one that is
not is an error, never left out in silence.
"""

from __future__ import annotations

import os
from collections.abc import Collection

from msgspec import Struct

from deltaimg.errors import GuestUnusable, UsageError

MAX_CONFIG_BYTES = 1 << 20
"""Of a configuration: real ones have some kilobytes."""
MARK = "[NOBAK]"
"""How the name of a disk begins that is not to be backed up; Xen Orchestra has the same."""


FORMATS = {each: each for each in ("qcow2", "vmdk", "vdi", "vhdx", "vpc")} | {"vhd": "vpc"}
"""Of files that hold an image in a format of their own: as hypervisors call them, and as qemu does."""


class DomainDisk(Struct, frozen=True):
    """A disk of a guest."""

    name: str
    """As the guest has it: `xvda`, `vda`."""
    path: str | None
    """The file or device on this host, or the address of an image of Ceph; None where there is none, for the reason below."""
    problem: str = ""
    """Why it cannot be read on this host, in words that follow its name."""
    is_removable: bool = False
    """A CD-ROM, a floppy or a disk that may be taken out."""
    is_shared: bool = False
    """Read-only, and for several guests."""
    format: str = ""
    """The format of its file as qemu calls it; empty of a flat one."""


class Domain(Struct, frozen=True):
    """A guest."""

    name: str
    disks: tuple[DomainDisk, ...]
    config: bytes
    """Its configuration, as its hypervisor takes it."""
    pause: str = ""
    """A command for the shell that stops it for a moment; empty where it is off."""
    resume: str = ""
    is_paused: bool = False


class LeftOut(Struct, frozen=True):
    """A disk that is not backed up, and why."""

    name: str
    reason: str


def choose_disks(domain: Domain, excluded: Collection[str]) -> tuple[dict[str, str], tuple[LeftOut, ...]]:
    """Return the paths of the disks that are backed up, by name, and those that are not.

    Args:
        excluded: names or paths of disks.

    Raises:
        UsageError: one that is excluded is not there. GuestUnusable: a disk cannot be read on this host, or none is left.
    """
    known = {each.name for each in domain.disks} | {each.path for each in domain.disks}
    for name in excluded:
        if name not in known:
            names = ", ".join(each.name for each in domain.disks) or "none"
            raise UsageError(f"guest {domain.name} has no disk '{name[:60]}'", hint=f"its disks: {names}")
    disks: dict[str, str] = {}
    left_out = []
    for disk in domain.disks:
        reason = _find_reason(disk, excluded, disks)
        if reason:
            left_out.append(LeftOut(disk.name, reason))
        elif disk.path is None:
            hint = f"--exclude-disk {disk.name} leaves it out"
            raise GuestUnusable(domain.name, f"its disk {disk.name} {disk.problem}", hint=hint)
        else:
            disks[disk.name] = disk.path
    if not disks:
        raise GuestUnusable(domain.name, "has no disk that could be backed up")
    return disks, tuple(left_out)


def _find_reason(disk: DomainDisk, excluded: Collection[str], disks: dict[str, str]) -> str:
    """Return why a disk is left out; nothing if it is not."""
    if disk.name in excluded or disk.path in excluded:
        return "excluded"
    if os.path.basename(disk.path or "").startswith(MARK) or disk.name.startswith(MARK):
        return f"its name begins with {MARK}"
    if disk.is_removable:
        return "removable"
    if disk.is_shared:
        return "read-only, and shared"
    if disk.path is not None and (same := next((name for name, path in disks.items() if path == disk.path), None)):
        return f"the same as {same}"
    return ""
