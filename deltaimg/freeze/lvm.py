# SPDX-License-Identifier: Apache-2.0
"""A snapshot of a logical volume: a thin one of a thin volume, one with room of its own of any other.

It is called `<volume>-deltaimg-<random>` and has a tag that says which process made it, so that the next backup of any volume
of the group removes those of dead ones. A thin one that change tracking keeps gets another name and loses that tag.

A snapshot with room of its own overflows when more is written to its origin than it has room for; then it is no point in time
any more, and nothing that was read of it is committed.

How much room it gets, unless `--snapshot-size` says so: three times what the last five backups took at most, or a tenth of the
volume where there is no experience; 64 MiB at least, and no more than the group has free.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from msgspec import Struct

from deltaimg.errors import FreezeFailed
from deltaimg.freeze import lvm_commands
from deltaimg.freeze.interface import FreezeRequest, Held
from deltaimg.freeze.lvm_commands import Volume
from deltaimg.freeze.methods import LVM
from deltaimg.freeze.owner import is_left_over, name_owner
from deltaimg.freeze.thin_pool import read_state, release_left_over
from deltaimg.model import MIB

_LEAST_BYTES = 64 * MIB
_SHARE_AT_FIRST = 10
_SAFETY_FACTOR = 3
_REMEMBERED = 5
_MAX_POOL_PERCENT = 95.0
_MAX_NAME = 100
"""LVM allows 127 characters, of which the suffix takes 18."""
_INFIX = "-deltaimg-"


class HeldVolume(Struct, frozen=True):
    """A snapshot that is there."""

    group: str
    name: str
    room_bytes: int
    """For what is written to its origin; 0 for a thin one."""

    @property
    def path(self) -> str:
        """Its device."""
        return f"/dev/{self.group}/{self.name}"

    @property
    def used_bytes(self) -> int:
        """How much of its room is taken; 0 of a thin one."""
        if not self.room_bytes:
            return 0
        with suppress(FreezeFailed):
            found = lvm_commands.find_by_name(self.group, self.name)
            return int(self.room_bytes * found.snap_percent / 100) if found else 0
        return 0

    def find_failure(self) -> str | None:
        """Return that it overflowed, or has gone; raises FreezeFailed where LVM does not say."""
        found = lvm_commands.find_by_name(self.group, self.name)
        if found is None:
            return f"its snapshot {self.group}/{self.name} was removed"
        if not self.room_bytes:
            return None
        return f"its snapshot of {self.room_bytes >> 20} MiB overflowed" if found.is_invalid else None


class LvmFreezer:
    """Makes a snapshot of a logical volume."""

    name = LVM

    def remove_leftovers(self, paths: Sequence[str]) -> list[str]:
        """Remove the snapshots of dead processes in the groups of volumes, and release metadata snapshots that they hold."""
        groups, removed = set(), []
        for path in paths:
            with suppress(FreezeFailed):
                groups.add(lvm_commands.find_volume(path).group)
        for group in sorted(groups):
            with suppress(FreezeFailed):
                volumes = lvm_commands.list_volumes(group)
                removed += release_left_over(volumes)
                for volume in volumes:
                    if _INFIX in volume.name and any(is_left_over(tag) for tag in volume.tags):
                        with suppress(FreezeFailed):
                            lvm_commands.remove_volume(volume.group, volume.name)
                            removed.append(volume.full_name)
        return removed

    def check(self, request: FreezeRequest) -> None:
        """Find the volume, and room for a snapshot."""
        _plan(request)

    @contextmanager
    def hold(self, request: FreezeRequest) -> Iterator[Held]:
        """Snapshot the volume; the snapshot is removed at the end."""
        volume, room_bytes = _plan(request)
        held = HeldVolume(volume.group, f"{volume.name[:_MAX_NAME]}{_INFIX}{secrets.token_hex(4)}", room_bytes)
        try:
            lvm_commands.create_snapshot(volume, held.name, name_owner(), room_bytes or None)
            yield held
        finally:
            # One that could not be removed is found by the next backup. One that is kept has another name by now.
            with suppress(FreezeFailed):
                if os.path.exists(held.path) or lvm_commands.find_by_name(held.group, held.name):
                    lvm_commands.remove_volume(held.group, held.name)


def _plan(request: FreezeRequest) -> tuple[Volume, int]:
    """Return the volume, and the room of a snapshot of it, 0 for a thin one; raises FreezeFailed where there can be none."""
    volume = lvm_commands.find_volume(request.path)
    if volume.is_snapshot:
        raise FreezeFailed(request.path, "is an LVM snapshot itself", hint="back it up with --freeze none")
    if volume.is_thin:
        _check_pool(request.path, volume)
        return volume, 0
    return volume, choose_room(request, volume)


def choose_room(request: FreezeRequest, volume: Volume) -> int:
    """Return the size of a snapshot that is not thin, in whole extents; raises FreezeFailed where there is no room for it."""
    wanted = request.options.snapshot_bytes
    if wanted is None:
        wanted = min(_estimate(request.used_before, volume.size_bytes), max(volume.free_bytes, _LEAST_BYTES))
    extent_bytes = max(volume.extent_bytes, 1)
    room_bytes = -(-wanted // extent_bytes) * extent_bytes
    if room_bytes > volume.free_bytes:
        raise FreezeFailed(
            request.path,
            f"volume group {volume.group} has {volume.free_bytes >> 20} MiB free, and a snapshot of "
            f"{room_bytes >> 20} MiB does not fit",
            hint="extend the group, or give --snapshot-size: room for what is written to the volume while it is backed up",
        )
    return room_bytes


def _estimate(used_before: Sequence[int], size_bytes: int) -> int:
    used = max(used_before[:_REMEMBERED], default=0)
    wanted = used * _SAFETY_FACTOR if used else size_bytes // _SHARE_AT_FIRST
    return max(wanted, _LEAST_BYTES)


def _check_pool(path: str, volume: Volume) -> None:
    """Raise FreezeFailed where a thin pool is nearly full: the origin could not be written to any more."""
    pool = lvm_commands.find_pool(volume)
    if pool is None:
        return
    if problem := read_state(pool, path).problem:
        raise FreezeFailed(path, f"thin pool {pool.full_name} {problem}", hint="see 'Removing thin pools' lvmthin(7)")
    if max(pool.data_percent, pool.metadata_percent) > _MAX_POOL_PERCENT:
        raise FreezeFailed(
            path,
            f"thin pool {pool.full_name} is full to {pool.data_percent:.0f} % (metadata {pool.metadata_percent:.0f} %)",
            hint="extend it: with a snapshot, what is written to the volume takes room in the pool",
        )
