# SPDX-License-Identifier: Apache-2.0
"""Images into snapshots."""

from __future__ import annotations

import dataclasses

from deltaimg import __version__
from deltaimg.api.vanished import note_loss, remember_snapshots
from deltaimg.engine.backup.forecast import BackupForecast, forecast_backup
from deltaimg.engine.backup.run import back_up
from deltaimg.engine.progress import Progress
from deltaimg.format.manifest import Manifest
from deltaimg.image.command import CommandSource
from deltaimg.image.open_source import open_source
from deltaimg.image.source import ImageSource
from deltaimg.options.backup import BackupOptions
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
    progress: Progress | None = None,
) -> Manifest:
    """Store the file or device at `image_path` (`-`: the standard input) as the newest snapshot of `image`.

    Args:
        is_command: `image_path` is a command for the shell, whose output is the image; its exit status counts.
    """
    check_image_name(image)
    options = dataclasses.replace(options or BackupOptions(), software=f"deltaimg {__version__}")
    source = _open(image_path, options, is_command=is_command)
    try:
        make_reserve(repository)
        seen = note_loss(repository, image)
        if seen is not None and progress is not None:
            progress.warn(
                f"image '{image}' had snapshots on {seen:%Y-%m-%d}, and has none now: is a disk not mounted? This is a full "
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
    progress: Progress | None = None,
) -> BackupForecast:
    """Return what `backup` would store, except the compressed size of new content; nothing is stored."""
    options = options or BackupOptions()
    source = _open(image_path, options, is_command=is_command)
    try:
        return forecast_backup(repository, source, image, options, progress=progress)
    finally:
        source.close()


def _open(path: str, options: BackupOptions, *, is_command: bool) -> ImageSource:
    if is_command:
        return CommandSource(path)
    return open_source(
        path,
        use_holes=not options.ignores_holes,
        is_direct=options.is_direct,
        is_salvaging=options.on_read_error == "zero",
    )
