# SPDX-License-Identifier: Apache-2.0
"""Images into snapshots."""

from __future__ import annotations

import dataclasses

from deltaimg import __version__
from deltaimg.api.vanished import note_loss, remember_snapshots
from deltaimg.engine.backup.opened_image import ImageChoice, prepare_image
from deltaimg.engine.backup.request import make_snapshot_id
from deltaimg.engine.backup.run import back_up
from deltaimg.engine.progress import NoProgress, Progress
from deltaimg.format.manifest import Manifest
from deltaimg.options.backup import BackupOptions
from deltaimg.repo.repository import Repository
from deltaimg.repo.reserve import make_reserve
from deltaimg.repo.selector import check_image_name
from deltaimg.tracking.choose import remove_kept
from deltaimg.tracking.interface import KeepsImages
from deltaimg.tracking.reflink import make_key


def backup(
    repository: Repository,
    image_path: str,
    image: str,
    options: BackupOptions | None = None,
    *,
    is_command: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Store the file or device at `image_path` (`-`: the standard input) as the newest snapshot of `image`.

    Args:
        is_command: `image_path` is a command for the shell, whose output is the image; its exit status counts.
    """
    check_image_name(image)
    options = dataclasses.replace(options or BackupOptions(), software=f"deltaimg {__version__}")
    progress = progress or NoProgress()
    choice = ImageChoice(image_path, image, make_snapshot_id(), is_command=is_command)
    with prepare_image(repository, choice, options, progress) as prepared:
        make_reserve(repository)
        warn_of_loss(repository, image, progress)
        manifest = back_up(
            repository,
            prepared.source,
            image,
            options,
            progress=progress,
            point_in_time=prepared.point,
            tracker=prepared.tracker,
            snapshot=choice.snapshot,
        )
        remember_snapshots(repository, image)
        if not isinstance(prepared.tracker, KeepsImages) and not prepared.source.is_sequential:
            remove_tracking(repository, image_path, image)
        return manifest


def warn_of_loss(repository: Repository, image: str, progress: Progress) -> None:
    """Warn of an image whose snapshots this host has seen, and that has none now."""
    seen = note_loss(repository, image)
    if seen is not None:
        progress.warn(
            f"image '{image}' had snapshots on {seen:%Y-%m-%d}, and has none now: is a disk not mounted? This is a full "
            f"backup, and 'deltaimg prune' deletes nothing until they are back"
        )


def remove_tracking(repository: Repository, image_path: str, image: str) -> None:
    """Remove what earlier backups kept to track changes: the newest snapshot is another one now."""
    remove_kept(image_path, make_key(repository.config.repository_id, image))
