# SPDX-License-Identifier: Apache-2.0
"""Which snapshot does the user mean?

    vm1                     the newest of image vm1           vm1@latest~2     the second before the newest
    vm1@2026-11-23          the last one taken that day       vm1@2026-11-23T02:30   the last one taken by then
    3f9c                    the one whose id begins so        vm1@3f9c         the same, of one image
    latest, latest~2        the newest, the second before it, where there is one image only

Days and times are those of the local time zone, unless they carry one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from difflib import get_close_matches

from deltaimg.errors import AmbiguousSnapshot, SnapshotNotFound, UsageError
from deltaimg.format.manifest import find_name_problem, format_time
from deltaimg.repo.repository import Repository, SnapshotRef

_LATEST = re.compile(r"^latest(?:~(\d{1,9}))?$")
_ID = re.compile(r"^[0-9a-f]{1,16}$")
_DATE = re.compile(r"^\d{4}-\d{2}-\d{2}")
_MOST_NEAR = 3


def check_image_name(name: str) -> str:
    """Return `name` if it can name an image; raises UsageError."""
    if problem := find_name_problem(name):
        raise UsageError(
            f"image name {name[:60]!r} {problem}", hint="letters, digits, dots, dashes and the like make a name"
        )
    return name


def select_snapshot(repository: Repository, selector: str) -> SnapshotRef:
    """Return the snapshot that `selector` means, also if its damaged manifest is in quarantine.

    A repair must not change what `latest` means: a damaged snapshot is an error, never an older snapshot.

    Raises:
        SnapshotNotFound, AmbiguousSnapshot, UsageError.
    """
    image, at, moment = selector.rpartition("@")
    of_image = check_image_name(image) if at else None
    refs = sorted({*repository.list_snapshots(of_image), *repository.list_quarantined(of_image)})
    if not at:
        return _select_without_image(refs, selector)
    if not refs:
        raise SnapshotNotFound(selector, hint=_suggest_images(image, repository.list_snapshots()))
    return select_of_image(refs, selector, moment)


def select_of_image(refs: list[SnapshotRef], selector: str, moment: str) -> SnapshotRef:
    """Return which of the snapshots of one image, of which there are some, `moment` means: what follows `@`.

    Args:
        refs: oldest first. selector: for messages.
    """
    back = parse_back(moment)
    if back is not None:
        if back >= len(refs):
            raise make_too_far_back(selector, refs[0].image, len(refs))
        return refs[-1 - back]
    if _DATE.match(moment):
        return _select_by_time(refs, selector, moment)
    return _select_by_id(refs, selector, moment)


def parse_back(moment: str) -> int | None:
    """Return how far back from the newest one `latest~2` is, None for a moment that is not written so."""
    match = _LATEST.match(moment)
    return int(match[1] or 0) if match else None


def make_too_far_back(selector: str, name: str, count: int) -> SnapshotNotFound:
    """Return the error of a selector that goes back further than there are snapshots."""
    return SnapshotNotFound(selector, hint=f"'{name}' has {count} snapshot{'s' * (count > 1)}")


def _select_without_image(refs: list[SnapshotRef], selector: str) -> SnapshotRef:
    image, _, back = selector.partition("~")
    of_image = [ref for ref in refs if ref.image == image]
    if of_image and (back.isdigit() or not back):
        return select_of_image(of_image, selector, f"latest~{back or 0}")
    if _LATEST.match(selector) and refs:
        images = sorted({ref.image for ref in refs})
        if len(images) > 1:
            raise UsageError(f"'{selector}' of which image?", hint=f"write {images[0]}@{selector}, for example")
        return select_of_image(refs, selector, selector)
    found = find_by_id(refs, selector, selector)
    if found is None:
        raise SnapshotNotFound(selector, hint=_suggest_images(image, refs))
    return found


def find_by_id(refs: Sequence[SnapshotRef], selector: str, prefix: str) -> SnapshotRef | None:
    """Return the snapshot whose id begins with `prefix`; None if there is none, or it is no such beginning.

    Raises:
        AmbiguousSnapshot: there are several.
    """
    found = [ref for ref in refs if ref.id.startswith(prefix)] if _ID.match(prefix) else []
    if len(found) > 1:
        raise AmbiguousSnapshot(selector, [ref.label for ref in found])
    return found[0] if found else None


def _select_by_id(refs: list[SnapshotRef], selector: str, prefix: str) -> SnapshotRef:
    found = find_by_id(refs, selector, prefix)
    if found is None:
        raise SnapshotNotFound(selector)
    return found


def _select_by_time(refs: list[SnapshotRef], selector: str, moment: str) -> SnapshotRef:
    is_day = len(moment) == len("2026-11-23")
    try:
        start = datetime.fromisoformat(moment)
        first = format_time(start.astimezone())
        last = format_time((start + timedelta(days=is_day)).astimezone())
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"'{moment}' is not a valid date or time", hint="write 2026-11-23 or 2026-11-23T02:30"
        ) from error
    found = [ref for ref in refs if (first <= ref.time < last if is_day else ref.time <= last)]
    if not found:
        first, last = (f"{ref.time[:4]}-{ref.time[4:6]}-{ref.time[6:8]}" for ref in (refs[0], refs[-1]))
        raise SnapshotNotFound(selector, hint=f"snapshots of this image run from {first} to {last} (UTC)")
    return found[-1]


def _suggest_images(wanted: str, refs: Sequence[SnapshotRef]) -> str:
    """Return the hint for a name that no image has: those whose names are like it, else some that there are."""
    images = sorted({ref.image for ref in refs})
    if not images:
        return "the repository holds no snapshot yet"
    if near := get_close_matches(wanted, images, _MOST_NEAR):
        return f"did you mean {' or '.join(near)}?"
    return f"images here: {', '.join(images[:8])}{', …' if len(images) > 8 else ''}"
