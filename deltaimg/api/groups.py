# SPDX-License-Identifier: Apache-2.0
"""Groups of images: backed up as of one moment, and restored together."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping

from msgspec import Struct

from deltaimg import __version__
from deltaimg.api.backup import remove_tracking, warn_of_loss
from deltaimg.api.forecast import forecast_image
from deltaimg.api.group_disks import GroupParts, open_group
from deltaimg.api.restore import open_snapshot
from deltaimg.api.vanished import remember_snapshots
from deltaimg.domains.interface import MAX_CONFIG_BYTES
from deltaimg.domains.rewrite import move_path, rewrite_paths
from deltaimg.engine.backup.forecast import BackupForecast
from deltaimg.engine.backup.group import back_up_group
from deltaimg.engine.backup.opened_image import OpenedImage
from deltaimg.engine.progress import NoProgress, Progress
from deltaimg.engine.restore.run import RestoreResult, restore_all
from deltaimg.errors import ImageError, UsageError
from deltaimg.format.manifest import Manifest
from deltaimg.image.open_target import open_target
from deltaimg.image.qemu.address import is_monitor_address
from deltaimg.image.rbd.address import is_rbd_address
from deltaimg.image.target import ImageTarget
from deltaimg.options.backup import BackupOptions
from deltaimg.options.restore import RestoreOptions
from deltaimg.repo.groups import CONFIG_DISK, GroupSnapshot, find_group, select_group
from deltaimg.repo.repository import Repository
from deltaimg.repo.reserve import make_reserve
from deltaimg.tracking.interface import KeepsImages

_DEVICES = "/dev/"


def backup_group(
    repository: Repository,
    name: str,
    disks: Mapping[str, str],
    options: BackupOptions | None = None,
    *,
    config: bytes | None = None,
    formats: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> list[Manifest]:
    """Store files and devices as the newest snapshot of a group, all or none, and return their manifests in order.

    They are frozen together: as `auto` does where `options.freeze` is `none`.

    Args:
        disks: the path of each, by its name in the group: the image `<group>.<name>`.
        config: a text that is stored with them, as a member called `config`.
        formats: as `--format` has them, of disks in files with a format of their own, where `options` leave it to their names.
    """
    options = dataclasses.replace(options or BackupOptions(), software=f"deltaimg {__version__}")
    progress = progress or NoProgress()
    parts = GroupParts(disks, config, formats or {})
    with open_group(repository, name, parts, options, progress) as (group, members, frozen):
        make_reserve(repository)
        for each in members:
            warn_of_loss(repository, each.image, progress)
        manifests = back_up_group(repository, group, members, frozen, progress=progress)
        for each in members:
            remember_snapshots(repository, each.image)
            if not isinstance(each.tracker, KeepsImages) and each.point_in_time is not None:
                remove_tracking(repository, each.source.path, each.image)
        return manifests


def plan_group_backup(
    repository: Repository,
    name: str,
    disks: Mapping[str, str],
    options: BackupOptions | None = None,
    *,
    config: bytes | None = None,
    formats: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> dict[str, BackupForecast]:
    """Return what `backup_group` would store, by image; nothing is stored."""
    options, progress = options or BackupOptions(), progress or NoProgress()
    planned = {}
    parts = GroupParts(disks, config, formats or {}, is_dry_run=True)
    with open_group(repository, name, parts, options, progress) as (_, members, frozen):
        for each in members:
            opened = OpenedImage(each.source, each.point_in_time, each.tracker)
            planned[each.image] = forecast_image(repository, each.image, opened, each.options, progress)
        frozen.end_reading()
    return planned


# -- restore -----------------------------------------------------------------------------------------------------------


class RestoredGroup(Struct, frozen=True):
    """What a restore of a group wrote."""

    snapshot: GroupSnapshot
    results: dict[str, RestoreResult]
    """Of the disks, by target, in order."""
    config_path: str | None = None
    """Where the configuration of a guest was written to; None where there is none, or no place for it."""


def find_named_group(repository: Repository, selector: str) -> GroupSnapshot | None:
    """Return the snapshot of a group that `selector` means: `web1`, `web1@2026-11-23` or `web1@latest~2`.

    None where the name is that of an image, or of nothing.
    """
    return find_group(repository, selector)


def restore_group(
    repository: Repository,
    selector: str,
    folder: str | None,
    options: RestoreOptions | None = None,
    *,
    moves: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> RestoredGroup:
    """Write every disk of a group's snapshot into a folder, or to where `moves` say, and the configuration of a guest.

    `/dev/vg/web1-root` is written to `<folder>/web1-root`: a file, or the logical volume where the folder is one of a volume
    group. Disks that had the same name get that of their image. All targets are opened before anything is written. The
    configuration is written into the folder as `<group>.config`, with the new paths of the disks, unless it is one of devices.

    Args:
        moves: where disks go that were at a path, or below a folder.

    Raises:
        GroupIncomplete: members are missing. Else as `restore`, of the first target that cannot be written to.
    """
    options = options or RestoreOptions()
    found = select_group(repository, selector)
    found.check_whole()
    targets = choose_targets(found, folder, moves or {})
    config = found.find(CONFIG_DISK)
    config_target = None
    if config is not None and folder is not None and not _is_of_devices(folder):
        paths = {
            manifest.source: target if is_rbd_address(target) else os.path.abspath(target)
            for target, manifest in targets.items()
        }
        text = rewrite_paths(_read_config(repository, config.manifest), paths)
        name = os.path.join(folder, config.manifest.image)
        config_target = open_target(name, len(text), is_forced=options.is_forced, is_synced=options.is_synced)
    try:
        results = restore_all(
            repository,
            targets,
            is_forced=options.is_forced,
            keep_going=options.keep_going,
            is_synced=options.is_synced,
            progress=progress,
        )
    except BaseException:
        if config_target is not None:
            config_target.abort()
        raise
    if config_target is not None:
        _write_text(config_target, text)
    return RestoredGroup(found, dict(zip(targets, results, strict=True)), config_target.path if config_target else None)


def read_guest_config(repository: Repository, selector: str, moves: Mapping[str, str] | None = None) -> bytes:
    """Return the configuration of a guest as it was when a snapshot of it was taken; of an incomplete one as well.

    Args:
        moves: where disks are now that were at a path, or below a folder: what is returned says so.

    Raises:
        UsageError: the snapshot has none.
    """
    found = select_group(repository, selector)
    config = found.find(CONFIG_DISK)
    if config is None:
        hint = "only 'backup --guest' stores it" if CONFIG_DISK not in found.disks else None
        raise UsageError(f"{found.label} has no configuration of a guest", hint=hint)
    text = _read_config(repository, config.manifest)
    sources = [each.manifest.source for each in found.snapshots if each is not config]
    return rewrite_paths(text, {source: move_path(source, moves or {}) for source in sources})


def find_guest_config(repository: Repository, found: GroupSnapshot) -> bytes | None:
    """Return the configuration of a guest in a snapshot of it, as it was; None where there is none."""
    config = found.find(CONFIG_DISK)
    return None if config is None else _read_config(repository, config.manifest)


def write_guest_config(config: bytes, path: str, options: RestoreOptions | None = None) -> None:
    """Write a configuration to a new file, or to the standard output (`-`); as `restore` writes images."""
    options = options or RestoreOptions()
    _write_text(open_target(path, len(config), is_forced=options.is_forced, is_synced=options.is_synced), config)


def choose_targets(found: GroupSnapshot, folder: str | None, moves: Mapping[str, str]) -> dict[str, Manifest]:
    """Return where each disk of a group's snapshot is written to; raises UsageError, ImageError.

    Volumes must be there: a file among devices would take memory, and vanish.
    """
    if folder is not None and not os.path.isdir(folder):
        raise UsageError(f"{folder} is not a folder", hint="--into takes one that exists, such as /dev/vg")
    manifests = [each.manifest for each in found.snapshots if found.name_disk(each.manifest) != CONFIG_DISK]
    names = [_name_target(each) for each in manifests]
    targets: dict[str, Manifest] = {}
    for name, manifest in zip(names, manifests, strict=True):
        target = move_path(manifest.source, moves)
        if target == manifest.source:
            if folder is None:
                hint = f"--map {manifest.source}=PATH, or --into FOLDER for all"
                raise UsageError(f"nothing says where {manifest.source} is to be restored to", hint=hint)
            target = os.path.join(folder, name if names.count(name) == 1 else manifest.image)
        if target in targets:
            raise UsageError(f"{manifest.label} and {targets[target].label} would both be restored to {target}")
        if _is_of_devices(os.path.dirname(target)) and not os.path.exists(target):
            hint = f"'lvcreate --size {manifest.size_bytes}b --name {os.path.basename(target)} GROUP' makes it"
            raise ImageError(target, f"is not there, and {manifest.label} needs it", hint=hint)
        targets[target] = manifest
    return targets


def _write_text(target: ImageTarget, text: bytes) -> None:
    """Write all of a target, and give it its name; nothing is left of it where that fails."""
    try:
        target.write(0, memoryview(text))
        target.commit()
    except BaseException:
        target.abort()
        raise


def _is_of_devices(folder: str) -> bool:
    return os.path.join(os.path.realpath(folder or os.curdir), "").startswith(_DEVICES)


def _name_target(manifest: Manifest) -> str:
    base = "" if is_monitor_address(manifest.source) else os.path.basename(manifest.source)
    return manifest.image if base in ("", ".", "..") else base


def _read_config(repository: Repository, manifest: Manifest) -> bytes:
    """Return the content of a configuration, which is verified as it is read."""
    if manifest.size_bytes > MAX_CONFIG_BYTES:
        raise UsageError(f"{manifest.label} is no configuration: it has {manifest.size_bytes} bytes")
    with open_snapshot(repository, manifest.id) as reader:
        return reader.read(0, manifest.size_bytes)
