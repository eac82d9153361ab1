# SPDX-License-Identifier: Apache-2.0
"""The pool of a thin volume: its state, and a snapshot of its metadata for as long as it is read.

A pool has one metadata snapshot at most, which has no owner. A tag of the pool says that it is ours:

    held-<process, see owner.name_owner>.t<transaction>

The tag is there before the metadata snapshot is reserved, and is removed after it is released. One that a dead process left
is released by the next backup if it is of the transaction in that tag: a pool counts one whenever a volume is made or removed,
and a metadata snapshot has the number that the pool had then. What another program reserved is never released.

Source  Documentation/admin-guide/device-mapper/thin-provisioning.rst and drivers/md/dm-thin-metadata.c of Linux.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from msgspec import Struct

from deltaimg.errors import FreezeFailed
from deltaimg.freeze import lvm_commands
from deltaimg.freeze.lvm_commands import Volume
from deltaimg.freeze.owner import is_left_over, name_owner

_TAG = "held-"
_TRANSACTION = re.compile(r"\.t(\d{1,20})$")
_BLOCK_BYTES = 4096
_SUPERBLOCK = struct.Struct("<4x4xQ16xQ4x4xQ")
"""Place, magic and transaction, as far as they are used here."""
_MAGIC = 27022010
_REPAIR = "'lvconvert --repair' of it, while nothing uses it; see lvmthin(7)"


class PoolState(Struct, frozen=True):
    """What device mapper says of a pool."""

    transaction: int = 0
    held_block: int | None = None
    """Of its metadata: where the metadata snapshot begins; None where there is none."""
    problem: str = ""
    """Why no snapshots can be made in it, in words that follow its name."""


@contextmanager
def hold_metadata(pool: Volume, subject: str) -> Iterator[None]:
    """Reserve a snapshot of a pool's metadata for the time of a context.

    Args:
        subject: the image, for errors.

    Raises:
        FreezeFailed: the pool is not in order, or another program holds one. One that could not be released is found later.
    """
    state = read_state(pool, subject)
    if state.problem:
        raise FreezeFailed(subject, f"thin pool {pool.full_name} {state.problem}", hint=_REPAIR)
    if state.held_block is not None:
        raise FreezeFailed(
            subject,
            f"another program holds the metadata snapshot of thin pool {pool.full_name}",
            hint=f"if it is none that runs: dmsetup message {_name_device(pool)} 0 release_metadata_snap",
        )
    tag = f"{_TAG}{name_owner()}.t{state.transaction}"
    lvm_commands.change_volume(pool, "--addtag", tag)
    is_held = True
    try:
        try:
            _send(pool, subject, "reserve_metadata_snap")
        except FreezeFailed:
            is_held = False  # Another program was faster.
            raise
        yield
    finally:
        with suppress(FreezeFailed):
            if is_held:
                _send(pool, subject, "release_metadata_snap")
            lvm_commands.change_volume(pool, "--deltag", tag)


def release_left_over(volumes: Sequence[Volume]) -> list[str]:
    """Release the metadata snapshots that dead processes hold of pools of a group, and return which. Nothing is raised."""
    released = []
    nodes = {each.name: each.node for each in volumes}
    for pool in volumes:
        for tag in pool.tags:
            if tag.startswith(_TAG) and is_left_over(tag.removeprefix(_TAG)):
                with suppress(FreezeFailed, OSError, KeyError):
                    if _release(pool, tag, nodes[pool.metadata]):
                        released.append(f"the metadata snapshot of {pool.full_name}")
                    lvm_commands.change_volume(pool, "--deltag", tag)
    return released


def read_state(pool: Volume, subject: str) -> PoolState:
    """Return what device mapper says of a pool; raises FreezeFailed where it is not active."""
    return parse_status(
        lvm_commands.run_command(subject, "dmsetup", "status", _name_device(pool)).decode(errors="replace")
    )


def parse_status(text: str) -> PoolState:
    """Return what a status line of a pool means; one that makes no sense is a problem of it."""
    fields = text.split()[2:]
    if fields[:1] != ["thin-pool"]:
        return PoolState(problem="is none that device mapper knows")
    if len(fields) < 6:
        return PoolState(problem="has failed" if fields[1:] == ["Fail"] else "is in an unknown state")
    if not fields[1].isdecimal() or not (fields[4] == "-" or fields[4].isdecimal()):
        return PoolState(problem="is in an unknown state")
    problem = ""
    if "needs_check" in fields[6:]:
        problem = "has damaged metadata, which needs repair"
    elif fields[5] == "ro":
        problem = "can only be read: its metadata is damaged or full"
    elif fields[5] == "out_of_data_space":
        problem = "is full"
    return PoolState(int(fields[1]), None if fields[4] == "-" else int(fields[4]), problem)


def _release(pool: Volume, tag: str, metadata: str) -> bool:
    """Release a pool's metadata snapshot if it is the one that a tag is about; raises FreezeFailed, OSError."""
    held_block, transaction = read_state(pool, pool.path).held_block, _TRANSACTION.search(tag)
    if held_block is None or transaction is None:
        return False
    if _read_transaction(metadata, held_block) != int(transaction[1]):
        return False
    _send(pool, pool.path, "release_metadata_snap")
    return True


def _read_transaction(path: str, block: int) -> int | None:
    """Return the transaction of the metadata snapshot at a block; None if there is none there. Raises OSError."""
    # Past the page cache, which does not see what the kernel itself writes to the device.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
    try:
        buffer = mmap.mmap(-1, _BLOCK_BYTES)
        if os.preadv(descriptor, [buffer], block * _BLOCK_BYTES) != _BLOCK_BYTES:
            return None
        _, magic, transaction = _SUPERBLOCK.unpack_from(buffer)
        return transaction if magic == _MAGIC else None
    finally:
        os.close(descriptor)


def _send(pool: Volume, subject: str, message: str) -> None:
    lvm_commands.run_command(subject, "dmsetup", "message", _name_device(pool), "0", message)


def _name_device(pool: Volume) -> str:
    """Return the name of the device that the pool's volumes are in: LVM puts the pool itself over it."""
    return f"{os.path.basename(pool.node)}-tpool"
