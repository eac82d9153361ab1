# SPDX-License-Identifier: Apache-2.0
"""What was said about snapshots after their backup: read, said, and removed with its snapshot.

Always  an annotation is written once. Saying something else writes the next number, and only then removes those before it: a
        crash leaves one or two, and the valid one with the highest number counts.
Always  whoever lost the image's lock meanwhile changes nothing but an annotation of the one snapshot, and is told.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from msgspec.structs import replace

from deltaimg.errors import (
    DeltaimgError,
    IntegrityError,
    LockLost,
    ObjectExists,
    ObjectNotFound,
    RepositoryLocked,
    UnsupportedFormat,
)
from deltaimg.format.annotation import ANNOTATIONS, Annotation, split_annotation_name
from deltaimg.format.manifest import Manifest, format_time
from deltaimg.repo.lock import ImageLock
from deltaimg.repo.object_kinds import ANNOTATION
from deltaimg.repo.repository import Repository, SnapshotRef

_TRIES = 3

AnnotationNames = dict[tuple[str, str], list[str]]
"""The object names of the annotations of each snapshot, by image and id, the oldest first."""


@dataclass(frozen=True, slots=True)
class Said:
    """What is said about a snapshot."""

    annotation: Annotation | None
    """The newest that can be read."""
    error: DeltaimgError | None
    """What is wrong with a newer one."""


NOTHING_SAID = Said(None, None)


def list_annotations(repository: Repository, image: str | None = None) -> AnnotationNames:
    """Return what annotations there are, of the snapshots of one image or of all."""
    names: AnnotationNames = defaultdict(list)
    for found in repository.objects.list(ANNOTATIONS if image is None else f"{ANNOTATIONS}{image}/"):
        if parts := split_annotation_name(found.name):
            names[parts[:2]].append(found.name)
    return names


def load_said(repository: Repository, ref: SnapshotRef, names: AnnotationNames | None = None) -> Said:
    """Return what is said about a snapshot.

    Args:
        names: a listing, so that not each snapshot needs one of its own.
    """
    for _ in range(_TRIES):
        try:
            return _load(repository, (names or list_annotations(repository, ref.image)).get((ref.image, ref.id), []))
        except ObjectNotFound:
            names = None  # another one has taken its place since the listing
    return NOTHING_SAID


def annotate(
    repository: Repository,
    manifest: Manifest,
    lock: ImageLock,
    now: datetime,
    change: Callable[[Annotation], Annotation],
) -> Annotation:
    """Change what is said about a snapshot, under its image's lock, and return that.

    Args:
        change: gets what is said now.

    Raises:
        LockLost: the lock was removed; what was to be said is not.
    """
    ref = SnapshotRef.of(manifest)
    for _ in range(_TRIES):
        names = list_annotations(repository, ref.image).get((ref.image, ref.id), [])
        said = _load(repository, names)
        before = said.annotation or _say_nothing(manifest)
        after = change(before)
        if after == before and said.error is None:
            return before
        holder = lock.holder
        number = 1 + max((_number_of(name) for name in names), default=0)
        after = replace(after, number=number, time=format_time(now), owner=holder.owner, host=holder.host)
        try:
            repository.objects.put(ANNOTATION, after.object_name, after, lock.check)
        except ObjectExists:
            lock.check()
            continue  # somebody who has lost the lock since wrote it just now
        _withdraw_if_lost(repository, lock, after)
        remove_annotations(repository, names)
        return after
    raise RepositoryLocked(f"what is said about {ref.label}", "another process that changes it")


def remove_orphans(repository: Repository, confirm: Callable[[], None]) -> int:
    """Remove the annotations of snapshots that are gone, and return their size: a forget may have died before it could.

    Annotations are listed before snapshots, so that one of a snapshot that is made meanwhile is none of these.

    Args:
        confirm: raises if the lock is lost.
    """
    found = [(each, split_annotation_name(each.name)) for each in repository.objects.list(ANNOTATIONS)]
    known = {(ref.image, ref.id) for ref in (*repository.list_snapshots(), *repository.list_quarantined())}
    freed = 0
    for each, parts in found:
        if parts is not None and parts[:2] not in known:
            confirm()
            repository.objects.delete(each.name)
            freed += each.size_bytes
    return freed


def remove_annotations(repository: Repository, names: list[str]) -> None:
    """Remove annotations in the order given: the newest of a snapshot last, so that what is said does not go back."""
    for name in names:
        repository.objects.delete(name)


def _say_nothing(manifest: Manifest) -> Annotation:
    """Return what is said about a snapshot without an annotation."""
    return Annotation(
        image=manifest.image,
        snapshot=manifest.id,
        number=1,
        time=manifest.time,
        tags=manifest.tags,
        comment=manifest.comment,
    )


def _number_of(name: str) -> int:
    return int(name.rpartition("-")[2])


def _load(repository: Repository, names: list[str]) -> Said:
    """Return what is said in annotations, the oldest first; raises ObjectNotFound where one has gone."""
    error: DeltaimgError | None = None
    for name in reversed(names):
        try:
            return Said(repository.objects.get(ANNOTATION, name), error)
        except (IntegrityError, UnsupportedFormat) as problem:
            error = error or problem
    return Said(None, error)


def _withdraw_if_lost(repository: Repository, lock: ImageLock, annotation: Annotation) -> None:
    """Take back what was said where the lock was lost just before: somebody else may have said something else meanwhile."""
    try:
        lock.check()
    except LockLost:
        repository.objects.delete(annotation.object_name)
        raise
