# SPDX-License-Identifier: Apache-2.0
"""Change tracking of thin volumes: the snapshot that a backup read stays in the pool, and the next one is compared with it.

    <volume>-deltaimg-<key>-<snapshot id>

The key stands for the repository and the image's name in it. A snapshot gets this name before the backup is committed, and
the one before it is removed afterwards: after a crash at any moment there is that of the newest snapshot, and perhaps another,
which the next backup removes. It takes the room of what is written to the volume until then.

What is kept is read-only, and a tag has its unique id, so that another volume of its name is not used. Whatever else became of
it costs a full scan: removed, merged, of another volume than the image is now.

Invariant  a snapshot is compared only under the id of the one that was read from it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress

from msgspec import Struct
from msgspec.structs import replace

from deltaimg.errors import FreezeFailed
from deltaimg.format.manifest import Manifest
from deltaimg.freeze import lvm_commands
from deltaimg.freeze.lvm_commands import Volume
from deltaimg.freeze.thin_pool import hold_metadata, read_state
from deltaimg.tracking.interface import THIN, ChangeClaim
from deltaimg.tracking.kept_file import KeptFile
from deltaimg.tracking.thin_delta import check_version, compare_volumes

_NAME = re.compile(r".*-deltaimg-(?P<key>[0-9a-f]{16})-(?P<snapshot>[0-9a-f]{16})")
_MAX_NAME = 80
"""LVM allows 127 characters, of which the suffix takes 43."""
_SEAL = "deltaimg.kept."
_MAX_PERCENT = 85.0
"""Of a pool: a snapshot is not kept in one that is fuller, since it makes it fuller still."""


class _Found(Struct, frozen=True):
    """A thin volume, its pool, and the snapshot of it that is read."""

    image: Volume
    pool: Volume
    metadata: str
    """The device of the pool's metadata."""
    present: Volume
    kept: dict[str, Volume]
    """What earlier backups kept, by snapshot."""


class ThinTracker:
    """Compares the snapshot that is read with the one that was kept of the base, and keeps it in turn."""

    method = THIN

    def __init__(self, path: str, found: _Found, key: str) -> None:
        self._path, self._found, self._key = path, found, key

    @classmethod
    def of(cls, path: str, snapshot_path: str, key: str) -> ThinTracker:
        """Return the tracker of an image, of whose volume there is a snapshot.

        Args:
            path: of the image. snapshot_path: of the device that is read. key: of `reflink.make_key`.

        Raises:
            FreezeFailed: the volume is not thin, or what is needed is not installed.
        """
        image = _find_thin(path)
        check_version(path)
        volumes = lvm_commands.list_volumes(image.group)
        by_name = {each.name: each for each in volumes}
        pool, present = by_name.get(image.pool), by_name.get(os.path.basename(snapshot_path))
        metadata = by_name.get(pool.metadata) if pool else None
        if pool is None or metadata is None or present is None:
            raise FreezeFailed(path, "its thin pool is not found")
        return cls(path, _Found(image, pool, metadata.node, present, _choose_kept(volumes, key)), key)

    def find_changes(self, base: Manifest) -> ChangeClaim:
        """Return where the volume does not share its content with the snapshot that was kept of `base`."""
        found = self._found
        kept = found.kept.get(base.id)
        if kept is None:
            others = "; the kept one is of another" if found.kept else ""
            return ChangeClaim(None, f"no volume was kept of snapshot {base.label}{others}")
        if problem := self._find_problem(kept, base):
            reason = f"volume {kept.full_name}, which was kept of snapshot {base.label}, {problem}"
            return ChangeClaim(None, reason, is_surprising=True)
        ids = kept.thin_id, found.present.thin_id
        try:
            with hold_metadata(found.pool, self._path):
                return ChangeClaim(compare_volumes(self._path, found.metadata, *ids, found.pool.chunk_bytes))
        except FreezeFailed as error:
            return ChangeClaim(None, f"thin volumes cannot be compared: {error.problem}", is_surprising=True)

    def open_image(self, base: Manifest) -> KeptFile | None:
        """Return the volume that was kept of `base`, None if there is none; as `KeepsImages` has it."""
        kept = self._found.kept.get(base.id)
        if kept is None:
            return None
        with suppress(FreezeFailed, OSError):
            if not kept.is_active:
                lvm_commands.change_volume(kept, "--ignoreactivationskip", "--activate", "y")
            return KeptFile(os.open(kept.path, os.O_RDONLY | os.O_CLOEXEC))
        return None

    def keep(self, snapshot: str) -> str | None:
        """Give the volume that was read its name, under which a snapshot that is about to be committed finds it."""
        present = self._found.present
        problem = "the volume is not kept, so that the next backup reads everything"
        try:
            pool = lvm_commands.find_by_name(present.group, present.pool)
            fullest = max(pool.data_percent, pool.metadata_percent) if pool else 100.0
            if fullest > _MAX_PERCENT:
                return f"{problem}: thin pool {present.group}/{present.pool} is full to {fullest:.0f} %"
            name = f"{self._found.image.name[:_MAX_NAME]}-deltaimg-{self._key}-{snapshot}"
            lvm_commands.rename_volume(present, name)
            # It is no leftover from now on, and is not activated at each start of the host.
            owners = (part for tag in present.tags for part in ("--deltag", tag))
            options = ("--addtag", _SEAL + present.uuid, "--setactivationskip", "y", *owners)
            lvm_commands.change_volume(replace(present, name=name), *options)
        except FreezeFailed as error:
            return f"{problem}: {error.problem}"
        return None

    def settle(self, snapshot: str) -> None:
        """Remove all others that were kept, now that the snapshot is committed."""
        _remove(each for of, each in self._found.kept.items() if of != snapshot)

    def _find_problem(self, kept: Volume, base: Manifest) -> str:
        """Return why a kept volume cannot be compared; empty if it can be."""
        image = self._found.image
        if kept.origin != image.name or kept.pool != image.pool:
            return f"is of another volume than {image.full_name}"
        if not kept.is_read_only or _SEAL + kept.uuid not in kept.tags:
            return "may have been written to, or is another one of its name"
        if kept.size_bytes != base.size_bytes:
            return "has another size than that had"
        return ""


def find_obstacle(path: str) -> str:
    """Return why changes of an image cannot be tracked in its thin pool; empty if they can be. Nothing is changed."""
    try:
        volume = _find_thin(path)
        check_version(path)
        pool = lvm_commands.find_pool(volume)
        state = read_state(pool, path) if pool else None
    except FreezeFailed as error:
        return error.problem
    if pool is None or state is None:
        return "its thin pool is not found"
    if state.problem:
        return f"thin pool {pool.full_name} {state.problem}"
    return "another program holds the metadata snapshot of its thin pool" if state.held_block is not None else ""


def remove_kept_volumes(path: str, key: str) -> None:
    """Remove what earlier backups kept of an image, where it is a thin volume. Nothing is raised."""
    with suppress(FreezeFailed):
        _remove(_choose_kept(lvm_commands.list_volumes(_find_thin(path).group), key).values())


def _find_thin(path: str) -> Volume:
    volume = lvm_commands.find_volume(path)
    if not volume.is_thin:
        raise FreezeFailed(path, "is no thin volume")
    return volume


def _choose_kept(volumes: Iterable[Volume], key: str) -> dict[str, Volume]:
    """Return those of a group that were kept of an image, by snapshot."""
    matches = ((each, _NAME.fullmatch(each.name)) for each in volumes if each.is_thin)
    return {match["snapshot"]: each for each, match in matches if match and match["key"] == key}


def _remove(volumes: Iterable[Volume]) -> None:
    for each in volumes:
        with suppress(FreezeFailed):
            lvm_commands.remove_volume(each.group, each.name)
