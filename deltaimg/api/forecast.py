# SPDX-License-Identifier: Apache-2.0
"""What a backup would store."""

from __future__ import annotations

from deltaimg.engine.backup.forecast import BackupForecast, forecast_backup
from deltaimg.engine.backup.opened_image import ImageChoice, OpenedImage, prepare_image
from deltaimg.engine.backup.request import make_snapshot_id
from deltaimg.engine.progress import NoProgress, Progress
from deltaimg.options.backup import BackupOptions
from deltaimg.repo.repository import Repository
from deltaimg.repo.selector import check_image_name


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
    check_image_name(image)
    options, progress = options or BackupOptions(), progress or NoProgress()
    choice = ImageChoice(image_path, image, make_snapshot_id(), is_command=is_command, is_dry_run=True)
    with prepare_image(repository, choice, options, progress) as prepared:
        return forecast_image(repository, image, prepared, options, progress)


def forecast_image(
    repository: Repository, image: str, opened: OpenedImage, options: BackupOptions, progress: Progress
) -> BackupForecast:
    """Return what a backup of an image that is ready would store, and end its point in time."""
    point = opened.point
    planned = forecast_backup(
        repository,
        opened.source,
        image,
        options,
        progress=progress,
        is_stopped=point is not None and point.has_stopped_writers,
        tracker=opened.tracker,
    )
    if point is not None:
        point.end_reading()
    return planned
