# SPDX-License-Identifier: Apache-2.0
"""Images into snapshots."""

from __future__ import annotations

import dataclasses

from deltaimg import __version__
from deltaimg.api.vanished import note_loss, remember_snapshots
from deltaimg.engine.backup.forecast import BackupForecast, forecast_backup
from deltaimg.engine.backup.options import BackupOptions
from deltaimg.engine.backup.run import back_up
from deltaimg.engine.progress import Progress
from deltaimg.format.manifest import Manifest
from deltaimg.image.command import CommandSource
from deltaimg.image.open_source import open_source
from deltaimg.image.source import ImageSource
from deltaimg.repo.repository import Repository
from deltaimg.repo.reserve import make_reserve
from deltaimg.repo.selector import check_image_name


def backup(
    repository: Repository,
    image_path: str,
    image: str,
    options: BackupOptions | None = None,
    *,
    is_command: bool = False,
    use_holes: bool = True,
    is_direct: bool = False,
    is_salvaging: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Store the file or device at `image_path` (`-`: the standard input) as the newest snapshot of `image`.

    Args:
        is_command: `image_path` is a command for the shell, whose output is the image; its exit status counts.
        use_holes: trust the file system about holes; otherwise read everything.
        is_direct: read past the page cache.
        is_salvaging: back up what a failing disk still reads, with zeros for the rest: the manifest's `unreadable`.
    """
    check_image_name(image)
    options = dataclasses.replace(options or BackupOptions(), software=f"deltaimg {__version__}")
    source = _open(
        image_path, is_command=is_command, use_holes=use_holes, is_direct=is_direct, is_salvaging=is_salvaging
    )
    try:
        make_reserve(repository)
        seen = note_loss(repository, image)
        if seen is not None and progress is not None:
            progress.warn(
                f"image '{image}' had snapshots on {seen:%Y-%m-%d}, and none is there: is a disk not mounted? This is a full "
                f"backup, and 'deltaimg prune' deletes nothing until they are back"
            )
        manifest = back_up(repository, source, image, options, progress=progress)
        remember_snapshots(repository, image)
        return manifest
    finally:
        source.close()


def plan_backup(
    repository: Repository,
    image_path: str,
    image: str,
    options: BackupOptions | None = None,
    *,
    is_command: bool = False,
    use_holes: bool = True,
    is_direct: bool = False,
    is_salvaging: bool = False,
    progress: Progress | None = None,
) -> BackupForecast:
    """Return what `backup` would store, but for how small new content becomes; nothing is stored."""
    source = _open(
        image_path, is_command=is_command, use_holes=use_holes, is_direct=is_direct, is_salvaging=is_salvaging
    )
    try:
        return forecast_backup(repository, source, image, options, progress=progress)
    finally:
        source.close()


def _open(path: str, *, is_command: bool, use_holes: bool, is_direct: bool, is_salvaging: bool) -> ImageSource:
    if is_command:
        return CommandSource(path)
    return open_source(path, use_holes=use_holes, is_direct=is_direct, is_salvaging=is_salvaging)
