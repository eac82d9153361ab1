# SPDX-License-Identifier: Apache-2.0
"""Options of commands about groups of images and guests."""

from __future__ import annotations

from dataclasses import dataclass

from deltaimg.errors import UsageError
from deltaimg.options.definition import flag, option
from deltaimg.options.values import ValueType

_NAME = ValueType("NAME", str)
_FILE = ValueType("FILE", str)
_FOLDER = ValueType("FOLDER", str, str, lambda text: None if text else "it has no name")


_BEGINNINGS = ("/", "rbd:")
"""Of what can be moved: paths, and images of Ceph."""


def _parse_move(text: str) -> tuple[str, str]:
    old, equals, new = text.partition("=")
    if not (old.startswith(_BEGINNINGS) and equals and new.startswith(_BEGINNINGS)):
        raise UsageError(
            f"'{text[:60]}' is not a path, '=' and another path", hint="--map /dev/vg0=/dev/vg1, for example"
        )
    return old, new


_MOVE = ValueType("OLD=NEW", _parse_move, "=".join)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupOptions:
    """What is backed up together."""

    group: str | None = option(
        None,
        _NAME,
        "Back up several images of one moment, all or none, as NAME.disk0 and so on: name them as disk0=IMAGE.",
    )
    guest: str | None = option(
        None,
        _NAME,
        "Back up all disks of a Xen or libvirt guest, as a group of its name, with its configuration. One that runs is paused "
        "while they are frozen.",
    )
    guest_config: str | None = option(
        None, _FILE, "Read the guest's disks from this file: XML of libvirt, or a .cfg of xl."
    )
    excluded_disks: tuple[str, ...] = option(
        (),
        ValueType("DISK", str),
        "Leave out a disk of the guest, by its name or path; repeatable. CD-ROMs, removable disks, and files whose names begin "
        "with [NOBAK] are left out anyway.",
        "--exclude-disk",
        is_repeatable=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRestoreOptions:
    """What is restored together, and where it goes."""

    is_all: bool = flag("Restore the newest snapshot of every image, in place of SNAPSHOT.", "--all")
    images: tuple[str, ...] = option(
        (),
        _NAME,
        "Restore the newest snapshot of this image, or of all disks of this group, in place of SNAPSHOT; repeatable.",
        "--image",
        is_repeatable=True,
    )
    into: str | None = option(
        None,
        _FOLDER,
        "Restore images, or disks of a group, into this folder, or onto volumes of this volume group, named as they were.",
    )
    guest: str | None = option(None, _NAME, "Restore a guest, in place of SNAPSHOT: web1, web1@2026-11-23.")
    is_config_only: bool = flag("Write the guest's configuration to TARGET, or print it.", "--config-only")
    moves: tuple[tuple[str, str], ...] = option(
        (),
        _MOVE,
        "Restore a disk that was at OLD, or below that folder, to NEW, and say so in the configuration; repeatable.",
        "--map",
        is_repeatable=True,
    )
