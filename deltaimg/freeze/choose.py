# SPDX-License-Identifier: Apache-2.0
"""Which ways to freeze an image are tried: the one asked for, or those for what is at its path; what stands against each."""

from __future__ import annotations

import os
import stat

from deltaimg.errors import FreezeFailed, UsageError
from deltaimg.freeze.interface import Freezer, FreezeRequest
from deltaimg.freeze.methods import CEPH_METHODS, DEVICE_METHODS, FILE_METHODS, QMP, load_freezer
from deltaimg.image.nbd.address import is_nbd_address
from deltaimg.image.qemu.address import is_monitor_address
from deltaimg.image.rbd.address import is_rbd_address
from deltaimg.options.freeze import FreezeOptions

_SUBJECTS = {FILE_METHODS: "an image file", DEVICE_METHODS: "a logical volume", CEPH_METHODS: "an image of Ceph"}


def check_freeze_options(options: FreezeOptions) -> None:
    """Raise UsageError where options do not fit together."""
    has_hook = options.pre_freeze is not None or options.post_freeze is not None
    if options.freeze == "none" and has_hook:
        raise UsageError("--pre-freeze and --post-freeze need --freeze", hint="--freeze hook, or --freeze auto")
    if options.freeze == "hook" and not has_hook:
        raise UsageError("--freeze hook needs --pre-freeze, --post-freeze, or both")
    if options.snapshot_bytes is not None and options.freeze not in ("lvm", "auto"):
        raise UsageError("--snapshot-size is for --freeze lvm")


def choose_methods(path: str, options: FreezeOptions) -> tuple[Freezer, ...]:
    """Return the methods to be tried in turn; raises FreezeFailed where the one that was asked for is for something else."""
    return tuple(map(load_freezer, _choose_names(path, options.freeze)))


def find_obstacles(path: str) -> list[tuple[str, str]]:
    """Return the ways to freeze an image that `auto` tries, in order, each with why it does not work; nothing, if it does."""
    request = FreezeRequest(path, FreezeOptions(freeze="auto"))
    obstacles = []
    for each in choose_methods(path, request.options):
        try:
            each.check(request)
            obstacles.append((each.name, ""))
        except FreezeFailed as error:
            obstacles.append((each.name, error.problem))
    return obstacles


def _choose_names(path: str, wanted: str) -> tuple[str, ...]:
    if is_monitor_address(path):
        if wanted not in (QMP, "auto"):
            raise FreezeFailed(path, f"is a disk of a running qemu, so that --freeze {wanted} cannot be used")
        return (QMP,)
    if wanted in ("none", "hook"):
        return ()
    possible = _find_possible(path)
    if wanted == "auto":
        return possible or ()
    if possible is not None and wanted not in possible:
        [subject] = [subject for names, subject in _SUBJECTS.items() if wanted in names]
        raise FreezeFailed(path, f"is not {subject}, so that --freeze {wanted} cannot be used")
    return (wanted,)


def _find_possible(path: str) -> tuple[str, ...] | None:
    """Return the methods for what is at a path; None where nothing is known of it."""
    if is_rbd_address(path):
        return CEPH_METHODS
    if is_nbd_address(path):
        return ()
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return None
    return FILE_METHODS if stat.S_ISREG(mode) else DEVICE_METHODS if stat.S_ISBLK(mode) else ()
