# SPDX-License-Identifier: Apache-2.0
"""Signatures of what else a volume may be: a member of a RAID, encrypted, part of a pool, a file system that is not read here.

Many of these leave the first sectors as they were, so that the superblock of a file system that lay there before stays, with
all checksums right. What that has free may be content of the new owner.

Source  libblkid of util-linux, which lists all signatures that it finds; the sources of each owner.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import numpy as np
from msgspec import Struct

from deltaimg.guest.window import NOT_RECOGNISED, Window
from deltaimg.model import KIB

_RAID_LITTLE, _RAID_BIG = b"\xfc\x4e\x2b\xa9", b"\xa9\x2b\x4e\xfc"
_RAID_UNIT = 64 * KIB
_POOL_LABEL_BYTES, _POOL_SLOT_BYTES, _POOL_MAGIC = 256 * KIB, 1 * KIB, 0x00BAB10C


class _Signature(Struct, frozen=True):
    owner: str
    """For people."""
    offset: int
    magics: tuple[bytes, ...]


_AT_A_PLACE = (
    _Signature("LUKS", 0, (b"LUKS\xba\xbe",)),
    _Signature("dm-integrity", 0, (b"integrt\0",)),
    _Signature("VDO", 0, (b"dmvdo001",)),
    _Signature("BitLocker", 3, (b"-FVE-FS-",)),
    _Signature("Linux RAID", 0, (_RAID_LITTLE,)),
    _Signature("Stratis", 512 + 4, (b"!Stra0tis\x86\xff\x02^\x41rh",)),
    _Signature("F2FS", 1 * KIB, (b"\x10\x20\xf5\xf2",)),
    _Signature("HFS+", 1 * KIB, (b"H+\x00\x04", b"HX\x00\x05")),
    _Signature("NILFS", 1 * KIB, (b"\x02\x00\x00\x00\x00\x00\x34\x34",)),
    _Signature("Linux RAID", 4 * KIB, (_RAID_LITTLE,)),
    _Signature("bcache", 4 * KIB + 24, (b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81",)),
    _Signature("bcachefs", 4 * KIB + 24, (b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef",)),
    _Signature("UFS", 8 * KIB + 1372, (b"\x54\x19\x01\x00", b"\x00\x01\x19\x54")),
    _Signature("JFS", 32 * KIB, (b"JFS1",)),
    _Signature("ReiserFS", 64 * KIB + 52, (b"ReIsErFs", b"ReIsEr2Fs", b"ReIsEr3Fs")),
    _Signature("GFS2", 64 * KIB, (b"\x01\x16\x19\x70",)),
    _Signature("UFS", 64 * KIB + 1372, (b"\x19\x01\x54\x19", b"\x19\x54\x01\x19")),
    _Signature("VMFS", 1024 * KIB, (b"\x0d\xd0\x01\xc0",)),
)


def find_other_owner(window: Window) -> str:
    """Return what else has its signature in a window, for people; empty where nothing has. May raise what its reads raise."""
    for signature in _AT_A_PLACE:
        if any(_has(window, signature.offset, magic) for magic in signature.magics):
            return signature.owner
    for owner, is_there in _BY_LAYOUT:
        with suppress(*NOT_RECOGNISED):
            if is_there(window):
                return owner
    return ""


def _has(window: Window, offset: int, magic: bytes) -> bool:
    with suppress(*NOT_RECOGNISED):
        return window.read(offset, len(magic)) == magic
    return False


def _ends_with_raid(window: Window) -> bool:
    """Return whether there is a superblock of Linux RAID near the end, as versions 0.90 and 1.0 have it."""
    old_place = window.size_bytes // _RAID_UNIT * _RAID_UNIT - _RAID_UNIT
    place = (window.size_bytes - 8 * KIB) // (4 * KIB) * (4 * KIB)
    return window.read(old_place, 4) in (_RAID_LITTLE, _RAID_BIG) or window.read(place, 4) == _RAID_LITTLE


def _is_in_pool(window: Window) -> bool:
    """Return whether the first label of ZFS has a root of its tree: the second half of the label is a ring of these."""
    half = _POOL_LABEL_BYTES // 2
    slots = np.frombuffer(window.read(half, half), "<u8")[:: _POOL_SLOT_BYTES // 8]
    return bool(((slots == _POOL_MAGIC) | (slots.byteswap() == _POOL_MAGIC)).any())


_BY_LAYOUT: tuple[tuple[str, Callable[[Window], bool]], ...] = (("Linux RAID", _ends_with_raid), ("ZFS", _is_in_pool))
