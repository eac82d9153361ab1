# SPDX-License-Identifier: Apache-2.0
"""Annotate a snapshot after its backup: pin it, so that no policy forgets it, or change its tags or its comment."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import UTC, datetime

from msgspec.structs import replace

from deltaimg.errors import UsageError
from deltaimg.format.annotation import TAGS_HINT, Annotation, find_remark_problem, find_tag_problem
from deltaimg.format.limits import MAX_TAGS
from deltaimg.repo.annotations import annotate
from deltaimg.repo.lock import ImageLock
from deltaimg.repo.repository import Repository, SnapshotRef
from deltaimg.repo.snapshots import Snapshot, load_snapshot

_Clock = Callable[[], datetime]


def set_pin(repository: Repository, ref: SnapshotRef, reason: str | None, *, clock: _Clock | None = None) -> Snapshot:
    """Pin a snapshot for a reason, which may be an empty text, or unpin it where that is None; return it.

    Raises:
        UsageError: a reason that is too long or has control characters. RepositoryLocked: another process works on the image.
        LockLost: the lock was removed; nothing has changed.
    """
    if problem := find_remark_problem(reason or ""):
        raise UsageError(f"reason {problem}")
    purpose = "pin" if reason is not None else "unpin"
    return _change(repository, ref, purpose, lambda before: replace(before, pinned=reason), clock)


def change_tags(
    repository: Repository,
    ref: SnapshotRef,
    *,
    added: Collection[str] = (),
    removed: Collection[str] = (),
    clock: _Clock | None = None,
) -> Snapshot:
    """Add tags to a snapshot and remove others; return it. Adding a tag twice is no error, nor removing one that is not there.

    Raises:
        as `set_pin`.
    """
    for tag in added:
        if problem := find_tag_problem(tag):
            raise UsageError(f"tag {tag[:60]!r} {problem}", hint=TAGS_HINT)

    def change(before: Annotation) -> Annotation:
        kept = [tag for tag in before.tags if tag not in removed]
        tags = tuple(dict.fromkeys((*kept, *added)))
        if len(tags) > MAX_TAGS:
            raise UsageError(f"{len(tags)} tags: a snapshot can have {MAX_TAGS}")
        return replace(before, tags=tags)

    return _change(repository, ref, "tag", change, clock)


def _change(
    repository: Repository,
    ref: SnapshotRef,
    purpose: str,
    change: Callable[[Annotation], Annotation],
    clock: _Clock | None,
) -> Snapshot:
    now = clock() if clock else datetime.now(UTC)
    with ImageLock(repository, ref.image, purpose, now) as lock:
        manifest = load_snapshot(repository, ref).manifest
        annotate(repository, manifest, lock, now, change)
        return load_snapshot(repository, ref)
