# SPDX-License-Identifier: Apache-2.0
"""Groups of images: backed up as of one moment."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from deltaimg import __version__
from deltaimg.api.backup import remove_tracking, warn_of_loss
from deltaimg.api.forecast import forecast_image
from deltaimg.api.group_disks import GroupParts, open_group
from deltaimg.api.vanished import remember_snapshots
from deltaimg.engine.backup.forecast import BackupForecast
from deltaimg.engine.backup.group import back_up_group
from deltaimg.engine.backup.opened_image import OpenedImage
from deltaimg.engine.progress import NoProgress, Progress
from deltaimg.format.manifest import Manifest
from deltaimg.options.backup import BackupOptions
from deltaimg.repo.groups import GroupSnapshot, find_group
from deltaimg.repo.repository import Repository
from deltaimg.repo.reserve import make_reserve
from deltaimg.tracking.interface import KeepsImages


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


def find_named_group(repository: Repository, selector: str) -> GroupSnapshot | None:
    """Return the snapshot of a group that `selector` means: `web1`, `web1@2026-11-23` or `web1@latest~2`.

    None where the name is that of an image, or of nothing.
    """
    return find_group(repository, selector)
