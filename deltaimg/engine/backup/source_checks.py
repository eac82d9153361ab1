# SPDX-License-Identifier: Apache-2.0
"""Is the image source the right one, and consistent? Checked before it is read, and after."""

from __future__ import annotations

from datetime import UTC, datetime

from deltaimg.engine.progress import Progress
from deltaimg.engine.scan import MAX_GAP_BYTES, count_span_bytes
from deltaimg.errors import ImageInUse, SizeMismatch, SourceChanged, SourceShrank, UnsupportedImage, UsageError
from deltaimg.format.manifest import Manifest
from deltaimg.image.containers import find_container
from deltaimg.image.extents import Bounds
from deltaimg.image.source import ImageSource
from deltaimg.image.write_watch import describe_resize
from deltaimg.model import CLOCK_SKEW, SUSPICIOUS_SHRINKAGE
from deltaimg.options.backup import BackupOptions

_FIRST_TIME = datetime(1970, 1, 2, tzinfo=UTC)
_SIZE_HINT = "the image was cut short, or --size is of another one"
_LIVE_HINT = "freeze it with --freeze auto, or accept an inconsistent copy with --allow-live"


def check_use(source: ImageSource, options: BackupOptions, *, is_stopped: bool = False) -> bool:
    """Return whether something may write to the source meanwhile; raises ImageInUse where that is not allowed.

    Args:
        is_stopped: what uses it was stopped by the pre-freeze command. Whether it was is seen at the end.
    """
    writer = None if is_stopped else source.find_writer()
    if writer is not None and not options.allow_live:
        raise ImageInUse(source.path, f"is {writer}, so no snapshot was made", hint=_LIVE_HINT)
    return writer is not None


def check_container(source: ImageSource, newest: Manifest | None, options: BackupOptions) -> str:
    """Return the name of the format that a source's bytes are in, empty for a flat image.

    Raises:
        UnsupportedImage: a format that neither this run nor the previous one was to store unchanged.
    """
    found = find_container(source)
    if found is None:
        return ""
    if not options.stores_containers and (newest is None or newest.container != found.name):
        raise UnsupportedImage(
            source.path,
            f"is in {found.name} format, not a flat image, so no snapshot was made",
            hint=f"{found.advice}; --raw stores the file as it is",
        )
    return found.name


def check_unchanged(source: ImageSource, options: BackupOptions, changed_offset: int | None) -> bool:
    """Return whether the source was written to during the run; raises SourceChanged where that is not allowed.

    Args:
        changed_offset: where it read otherwise the second time, if it did.
    """
    change = source.find_change()
    if change is None and changed_offset is not None:
        change = f"was written to while it was read: byte {changed_offset} and after it read otherwise the second time"
    if change is not None and not options.allow_live:
        raise SourceChanged(source.path, f"{change}; no snapshot was made", hint=_LIVE_HINT)
    return change is not None


def warn_of_new_size(source: ImageSource, progress: Progress) -> None:
    """Warn of a source that was resized during a run that accepts changes: that is more than an inconsistent copy."""
    new_bytes = source.find_new_size()
    if new_bytes is not None:
        resize = describe_resize(source.size_bytes or 0, new_bytes)
        progress.warn(f"{source.path}: {resize}; the snapshot has the size from before")


def check_size(source: ImageSource, newest: Manifest | None, options: BackupOptions, progress: Progress) -> None:
    """Warn of a file or device that shrank; raises SourceShrank for a stream that did, or where nearly nothing is left.

    An expected size is compared instead: raises SizeMismatch. Raises UnsupportedImage where there is nothing at all. A
    stream whose size is not known yet is accepted.
    """
    size_bytes = source.size_bytes
    if size_bytes == 0:
        hint = "the program before the pipe may have failed: see what it said"
        if not source.is_sequential:
            hint = "name the file or device that has the image; one that was emptied is restored from a snapshot"
        raise UnsupportedImage(source.path, "the stream is empty" if source.is_sequential else "is empty", hint=hint)
    if size_bytes is not None and options.expected_bytes not in (None, size_bytes):
        problem = f"has {size_bytes} bytes, not {options.expected_bytes}; no snapshot was made"
        raise SizeMismatch(source.path, problem, hint=_SIZE_HINT)
    is_expected = options.allow_shrink or options.expected_bytes is not None
    if newest is None or size_bytes is None or size_bytes >= newest.size_bytes or is_expected:
        return
    problem = f"has {size_bytes} bytes, fewer than the {newest.size_bytes} of snapshot {newest.label}"
    if source.is_sequential:
        raise SourceShrank(source.path, f"{problem}: it may have been cut short, so no snapshot was made")
    if size_bytes * SUSPICIOUS_SHRINKAGE <= newest.size_bytes:
        raise SourceShrank(source.path, f"{problem}: it may be the wrong one, so no snapshot was made")
    progress.warn(f"{source.path}: {problem}; if it was not made smaller on purpose, something is wrong with it")


def check_length_so_far(source: ImageSource, read_bytes: int, options: BackupOptions) -> None:
    """Raise SizeMismatch as soon as a stream is longer than expected: its end may never come."""
    expected = options.expected_bytes
    if source.is_sequential and expected is not None and read_bytes > expected:
        raise SizeMismatch(source.path, f"has more than {expected} bytes; no snapshot was made", hint=_SIZE_HINT)


def count_total_bytes(
    source: ImageSource, to_read: Bounds, options: BackupOptions, max_gap_bytes: int = MAX_GAP_BYTES
) -> int | None:
    """Return how much there is to read; None where that is not known."""
    return options.expected_bytes if source.is_sequential else count_span_bytes(to_read, max_gap_bytes)


def check_time(newest: Manifest | None, options: BackupOptions, now: datetime, progress: Progress) -> None:
    """Refuse a time for the snapshot that is not between the newest one's and now; raises UsageError.

    Where none is given, and the newest is far in the future, a clock is or was wrong: that is warned of.
    """
    wanted = options.taken_at
    if wanted is None:
        if newest is not None and newest.taken_at > now + CLOCK_SKEW:
            progress.warn(
                f"{newest.label} is dated {newest.taken_at.astimezone():%Y-%m-%d %H:%M}, and the clock of this host says "
                f"{now.astimezone():%Y-%m-%d %H:%M}: one of the two is wrong. Until then snapshots are dated just after it; "
                "'deltaimg snapshots' also shows what the clock said, which policies go by"
            )
        return
    if not _FIRST_TIME <= wanted <= now:
        raise UsageError(f"{wanted.isoformat()} is not a time between 1970 and now")
    if newest is not None and wanted <= newest.taken_at:
        raise UsageError(
            f"{wanted.isoformat()} is not after snapshot {newest.label} of {newest.taken_at.isoformat()}",
            hint="import older images first, each under its time, or under an image name of its own",
        )
