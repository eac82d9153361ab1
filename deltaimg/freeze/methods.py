# SPDX-License-Identifier: Apache-2.0
"""The ways to freeze an image, by name, in the order in which `auto` tries them.

Each has a module that is imported when the way is tried: most backups freeze nothing, the others use one way, and what the
others need (a monitor, LVM, the library of Ceph) would cost every start a twentieth of its time.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from deltaimg.freeze.interface import Freezer

REFLINK: Final = "reflink"
BTRFS: Final = "btrfs"
LVM: Final = "lvm"
RBD: Final = "rbd"
QMP: Final = "qmp"

FILE_METHODS: Final = (REFLINK, BTRFS)
DEVICE_METHODS: Final = (LVM,)
CEPH_METHODS: Final = (RBD,)


@cache
def load_freezer(name: str) -> Freezer:
    """Return the way to freeze that has this name."""
    match name:
        case "reflink":
            from deltaimg.freeze.reflink import ReflinkFreezer

            return ReflinkFreezer()
        case "btrfs":
            from deltaimg.freeze.btrfs import BtrfsFreezer

            return BtrfsFreezer()
        case "lvm":
            from deltaimg.freeze.lvm import LvmFreezer

            return LvmFreezer()
        case "rbd":
            from deltaimg.freeze.rbd import RbdFreezer

            return RbdFreezer()
        case "qmp":
            from deltaimg.freeze.qmp import QmpFreezer

            return QmpFreezer()
    raise KeyError(name)
