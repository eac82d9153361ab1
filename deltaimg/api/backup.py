# SPDX-License-Identifier: Apache-2.0
"""Images into snapshots."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

from deltaimg import __version__
from deltaimg.api.vanished import note_loss, remember_snapshots
from deltaimg.engine.backup.forecast import BackupForecast, forecast_backup
from deltaimg.engine.backup.run import back_up
from deltaimg.engine.progress import NoProgress, Progress
from deltaimg.errors import IntegrityError, ObjectNotFound, OnlyWrites, UsageError
from deltaimg.format.manifest import Manifest
from deltaimg.freeze.freeze import PointInTime, check_freeze_options, freeze_image
from deltaimg.image.command import CommandSource
from deltaimg.image.open_source import STREAM, open_source
from deltaimg.image.qemu.formats import BY_NAME, FLAT, find_named_driver
from deltaimg.image.source import ImageSource
from deltaimg.options.backup import BackupOptions
from deltaimg.options.definition import validate
from deltaimg.repo.repository import Repository
from deltaimg.repo.reserve import make_reserve
from deltaimg.repo.selector import check_image_name
from deltaimg.tracking.choose import choose_tracker, plan_freezing
from deltaimg.tracking.interface import Tracker
from deltaimg.tracking.reflink import KeptClones, make_key

_REMEMBERED_BACKUPS = 5


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
    with _opened(repository, image_path, image, options, progress, is_command=is_command) as (source, point):
        tracker = choose_image_tracker(repository, image_path, image, options, source, point)
        make_reserve(repository)
        warn_of_loss(repository, image, progress)
        manifest = back_up(repository, source, image, options, progress=progress, point_in_time=point, tracker=tracker)
        remember_snapshots(repository, image)
        if tracker is None and not source.is_sequential:
            remove_kept_clones(repository, image_path, image)
        return manifest


def warn_of_loss(repository: Repository, image: str, progress: Progress) -> None:
    """Warn of an image whose snapshots this host has seen, and that has none now."""
    seen = note_loss(repository, image)
    if seen is not None:
        progress.warn(
            f"image '{image}' had snapshots on {seen:%Y-%m-%d}, and has none now: is a disk not mounted? This is a full "
            f"backup, and 'deltaimg prune' deletes nothing until they are back"
        )


def remove_kept_clones(repository: Repository, image_path: str, image: str) -> None:
    """Remove what earlier backups kept to track changes: the newest snapshot is another one now."""
    KeptClones(image_path, make_key(repository.config.repository_id, image)).remove()


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
    with _opened(repository, image_path, image, options, progress, is_command=is_command) as (source, point):
        tracker = choose_image_tracker(repository, image_path, image, options, source, point)
        is_stopped = point is not None and point.has_stopped_writers
        planned = forecast_backup(
            repository, source, image, options, progress=progress, is_stopped=is_stopped, tracker=tracker
        )
        if point is not None:
            point.end_reading()
        return planned


def choose_image_tracker(
    repository: Repository,
    path: str,
    image: str,
    options: BackupOptions,
    source: ImageSource,
    point: PointInTime | None,
) -> Tracker | None:
    """Return what is asked what changed; raises UsageError where the options do not fit what is read."""
    if options.hints is not None and source.is_sequential:
        raise UsageError("a stream is read as a whole: nothing can be left out of it", hint="leave --hints out")
    return choose_tracker(options, source, path, point, make_key(repository.config.repository_id, image))


@contextmanager
def _opened(
    repository: Repository, path: str, image: str, options: BackupOptions, progress: Progress, *, is_command: bool
) -> Iterator[tuple[ImageSource, PointInTime | None]]:
    """Freeze what is to be backed up, if that was asked for, and open it; it is closed, and nothing is left, at the end."""
    validate(options)
    freezing = plan_freezing(options)
    check_freeze_options(freezing)
    format_ = choose_format(repository, path, image, options)
    if freezing.freeze == "none":
        source = open_image(path, path, format_, options, is_command=is_command)
        with closing(source):
            yield source, None
        return
    subject = STREAM if is_command else path
    used_before = find_used_bytes(repository, image)
    with (
        freeze_image(subject, freezing, progress.warn, image=image, used_before=used_before) as point,
        closing(
            open_image(path if is_command else point.path, path, format_, options, is_command=is_command)
        ) as source,
    ):
        yield source, point


def find_used_bytes(repository: Repository, image: str) -> tuple[int, ...]:
    """Return how much room LVM snapshots took in earlier backups, the newest first, as far as manifests say."""
    used = []
    for ref in reversed(repository.list_snapshots(image)[-_REMEMBERED_BACKUPS:]):
        with suppress(IntegrityError, ObjectNotFound, OnlyWrites):
            freeze = repository.load_manifest(ref).freeze
            used.append(freeze.used_bytes if freeze else 0)
    return tuple(used)


def choose_format(repository: Repository, path: str, image: str, options: BackupOptions) -> str:
    """Return how a file is to be read: as it is, if the snapshot before was made so. Raises UsageError."""
    if options.stores_containers and options.format != BY_NAME:
        raise UsageError(f"--raw and --format {options.format} cannot both be used", hint="leave one of them out")
    if options.stores_containers:
        return FLAT
    if options.format == BY_NAME and find_named_driver(path) is not None:
        for ref in repository.list_snapshots(image)[-1:]:
            with suppress(IntegrityError, ObjectNotFound):
                return FLAT if repository.load_manifest(ref).container else BY_NAME
    return options.format


def open_image(path: str, name: str, format_: str, options: BackupOptions, *, is_command: bool) -> ImageSource:
    """Open what is at `path`, and call it `name`."""
    if is_command:
        return CommandSource(path)
    return open_source(
        path,
        name=name,
        format=format_,
        use_holes=not options.ignores_holes,
        is_direct=options.is_direct,
        is_salvaging=options.on_read_error == "zero",
    )
