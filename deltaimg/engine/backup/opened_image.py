# SPDX-License-Identifier: Apache-2.0
"""Make ready what is to be backed up: a new dirty bitmap begins, the image is frozen, opened, and asked what changed.

begin a bitmap     in a qcow2 file, before anything of it is read
freeze             a clone or a snapshot, if that was asked for
open               the image source
choose a tracker   what claims to know what changed
read               by whoever opened the context
close, unfreeze    whatever happens
remove bitmaps     those of other snapshots, if this one was committed
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress

from msgspec import Struct

from deltaimg.engine.progress import Progress
from deltaimg.errors import IntegrityError, ObjectNotFound, OnlyWrites, UsageError
from deltaimg.freeze.choose import check_freeze_options
from deltaimg.freeze.freeze import PointInTime, freeze_image
from deltaimg.image.command import CommandSource
from deltaimg.image.open_source import STREAM, open_source
from deltaimg.image.paced_source import PacedSource
from deltaimg.image.qemu.formats import BY_NAME, FLAT, find_named_driver
from deltaimg.image.rbd.address import is_rbd_address
from deltaimg.image.source import ImageSource
from deltaimg.options.backup import BackupOptions
from deltaimg.options.definition import validate
from deltaimg.posix import use_idle_disk_time
from deltaimg.repo.repository import Repository
from deltaimg.tracking.bitmap import FileBitmaps, KeptBitmaps
from deltaimg.tracking.choose import choose_tracker, plan_bitmaps, plan_freezing
from deltaimg.tracking.interface import Tracker
from deltaimg.tracking.reflink import make_key

_REMEMBERED_BACKUPS = 5


class ImageChoice(Struct, frozen=True):
    """What is to be backed up."""

    path: str
    """A path, an address, or a command."""
    image: str
    """Its name in the repository."""
    snapshot: str
    """The id that the snapshot will have."""
    is_command: bool = False
    """Whether `path` is a command for the shell, whose output is the image."""
    is_dry_run: bool = False
    """Whether nothing is to be changed, and so no bitmap begun."""


class OpenedImage(Struct, frozen=True):
    """An image that can be read."""

    source: ImageSource
    point: PointInTime | None
    """None where it was not to be frozen."""
    tracker: Tracker | None
    """None where everything is to be read."""


@contextmanager
def prepare_image(
    repository: Repository, choice: ImageChoice, options: BackupOptions, progress: Progress
) -> Iterator[OpenedImage]:
    """Make an image ready; all of it is undone at the end.

    Raises:
        UsageError: options that do not fit together. ImageError: it cannot be frozen or read. HookFailed: see `freeze_image`.
    """
    validate(options)
    key = make_key(repository.config.repository_id, choice.image)
    format_ = choose_format(repository, choice.path, choice.image, options)
    kept = None
    if not choice.is_command:
        kept = plan_bitmaps(options, choice.path, format_, key, None if choice.is_dry_run else choice.snapshot)
    freezing = plan_freezing(options, "" if choice.is_command else choice.path, kept)
    check_freeze_options(freezing)
    with ExitStack() as stack:
        if isinstance(kept, FileBitmaps):
            kept.begin()
            stack.callback(kept.end)
        point = None
        if freezing.freeze != "none":
            subject = STREAM if choice.is_command else choice.path
            used_before = find_used_bytes(repository, choice.image)
            point = stack.enter_context(
                freeze_image(
                    subject, freezing, progress.warn, image=choice.image, used_before=used_before, bitmaps=kept
                )
            )
        source = stack.enter_context(closing(_open(choice, point, format_, options, kept)))
        if options.hints is not None and source.is_sequential:
            raise UsageError("a stream is read as a whole: nothing can be left out of it", hint="leave --hints out")
        tracker = choose_tracker(options, source, choice.path, point, key, kept)
        yield OpenedImage(restrain(source, options), point, tracker)


def choose_format(repository: Repository, path: str, image: str, options: BackupOptions) -> str:
    """Return how a file is to be read: as it is, if the snapshot before was made so. Raises UsageError."""
    if options.stores_containers and options.format != BY_NAME:
        raise UsageError(f"--raw and --format {options.format} cannot both be used", hint="leave one of them out")
    if is_rbd_address(path) and options.format not in (BY_NAME, FLAT):
        raise UsageError(f"{path}: --format {options.format} is for files", hint="leave it out")
    if options.stores_containers or is_rbd_address(path):
        return FLAT
    if options.format == BY_NAME and find_named_driver(path) is not None:
        for ref in repository.list_snapshots(image)[-1:]:
            with suppress(IntegrityError, ObjectNotFound, OnlyWrites):
                return FLAT if repository.load_manifest(ref).container else BY_NAME
    return options.format


def find_used_bytes(repository: Repository, image: str) -> tuple[int, ...]:
    """Return how much room LVM snapshots took in earlier backups, the newest first, as far as manifests say."""
    used = []
    for ref in reversed(repository.list_snapshots(image)[-_REMEMBERED_BACKUPS:]):
        with suppress(IntegrityError, ObjectNotFound, OnlyWrites):
            freeze = repository.load_manifest(ref).freeze
            used.append(freeze.used_bytes if freeze else 0)
    return tuple(used)


def open_image(path: str, name: str, format_: str, options: BackupOptions, bitmaps: Sequence[str] = ()) -> ImageSource:
    """Open what is at `path`, and call it `name`; raises ImageError.

    Args:
        format_: of `choose_format`. bitmaps: dirty bitmaps to ask for.
    """
    return open_source(
        path,
        name=name,
        format=format_,
        bitmaps=bitmaps,
        use_holes=not options.ignores_holes,
        is_direct=options.is_direct,
        is_salvaging=options.on_read_error == "zero",
    )


def restrain(source: ImageSource, options: BackupOptions) -> ImageSource:
    """Return a source that leaves others as much of the disk as the options ask for; raises UsageError."""
    if options.disk_priority == "idle":
        use_idle_disk_time()
    return source if options.read_limit is None else PacedSource(source, options.read_limit)


def _open(
    choice: ImageChoice,
    point: PointInTime | None,
    format_: str,
    options: BackupOptions,
    kept: KeptBitmaps | None,
) -> ImageSource:
    if choice.is_command:
        return CommandSource(choice.path)
    bitmaps = () if kept is None else kept.usable
    if options.bitmap is not None:
        bitmaps = (options.bitmap.name,)
    return open_image(choice.path if point is None else point.path, choice.path, format_, options, bitmaps)
