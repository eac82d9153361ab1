# SPDX-License-Identifier: Apache-2.0
"""Where the images of a restore of several go: into one folder, or to where they are said to have moved.

Always  what is in a repository decides the last part of a path at most: no name leads out of the folder.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from deltaimg.domains.rewrite import move_path
from deltaimg.errors import ImageError, UsageError
from deltaimg.format.manifest import Manifest, find_name_problem
from deltaimg.image.nbd.address import is_nbd_address
from deltaimg.image.qemu.address import is_monitor_address
from deltaimg.image.qemu.formats import find_named_driver
from deltaimg.image.rbd.address import is_rbd_address

_DEVICES = "/dev/"
_NO_FILES = ("-", "command '", "/dev/fd/", "/dev/std", "/proc/")
"""How sources begin that are streams."""


def choose_targets(
    manifests: Sequence[Manifest], folder: str | None, moves: Mapping[str, str], taken: Sequence[str] = ()
) -> dict[str, Manifest]:
    """Return where each of some snapshots, of one image each, is written to; raises UsageError, ImageError.

    Volumes must be there: a file among devices would take memory, and vanish.

    Args:
        moves: where images go that were at a path, or below a folder; all others go into `folder`.
        taken: names in the folder that none of them may get.
    """
    if folder is not None and not os.path.isdir(folder):
        raise UsageError(f"{folder} is not a folder", hint="--into takes one that exists, such as /dev/vg")
    stay = [each for each in manifests if move_path(each.source, moves) == each.source]
    names = dict(zip((each.id for each in stay), _choose_names(stay, taken), strict=True))
    targets: dict[str, Manifest] = {}
    places: dict[str, Manifest] = {}
    lacking: list[str] = []
    for manifest in manifests:
        if manifest.id not in names:
            target = move_path(manifest.source, moves)
        elif folder is None:
            hint = f"--map {manifest.source}=PATH, or --into FOLDER for all"
            raise UsageError(f"nothing says where {manifest.source} is to be restored to", hint=hint)
        else:
            target = os.path.join(folder, names[manifest.id])
        place = target if is_rbd_address(target) else os.path.realpath(target)
        if place in places:
            raise UsageError(f"{manifest.label} and {places[place].label} would both be restored to {target}")
        if is_of_devices(os.path.dirname(target)) and not os.path.exists(target):
            lacking.append(target)
        targets[target] = places[place] = manifest
    if lacking:
        first, others = targets[lacking[0]], ", ".join(map(os.path.basename, lacking[1:]))
        hint = f"'lvcreate --size {first.size_bytes}b --name {os.path.basename(lacking[0])} GROUP' makes it"
        more = f"; nor are others: {others}" if others else ""
        raise ImageError(lacking[0], f"is not there, and {first.label} needs it{more}", hint=hint)
    return targets


def is_of_devices(folder: str) -> bool:
    """Return whether a folder is one of devices, such as that of the logical volumes of a volume group."""
    return os.path.join(os.path.realpath(folder or os.curdir), "").startswith(_DEVICES)


def _choose_names(manifests: Sequence[Manifest], taken: Sequence[str]) -> list[str]:
    """Return the name of each in the folder: the one that it had, or that of its image where another has the same.

    Names that differ in case alone count as the same, as they do on some file systems.
    """
    names = [_find_name(each) for each in manifests]
    while True:
        folded = [name.casefold() for name in (*names, *taken)]
        clashing = [
            number
            for number, manifest in enumerate(manifests)
            if folded.count(folded[number]) > 1 and names[number] != manifest.image
        ]
        if not clashing:
            return names
        for number in clashing:
            names[number] = manifests[number].image


def _find_name(manifest: Manifest) -> str:
    """Return the name of the file or device that an image was in; that of the image where it was in none.

    So it is where the name would not do for an image: no repository can have `.profile` written.
    """
    source = manifest.source
    if source.startswith(_NO_FILES) or is_monitor_address(source) or is_nbd_address(source):
        return manifest.image
    name = os.path.basename(source)
    if find_name_problem(name) is not None:
        return manifest.image
    if not manifest.container and find_named_driver(name) is not None:
        # The image that was in a qcow2 file, and is none of these now.
        return f"{os.path.splitext(name)[0]}.raw"
    return name
