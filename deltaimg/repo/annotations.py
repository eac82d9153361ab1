# SPDX-License-Identifier: Apache-2.0
"""Annotations of snapshots: tags, comment and pin as changed after the backup. Read, written, and removed with the snapshot.

Always  an annotation is written once. A change writes the next number, and only then removes the earlier ones: a
        crash leaves one or two, and the valid one with the highest number counts.
Always  a run that lost the image's lock meanwhile changes at most an annotation of the one snapshot, and gets LockLost.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import datetime

from msgspec import Struct
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


class Said(Struct, frozen=True):
    """The annotation of a snapshot, and its damage."""

    annotation: Annotation | None
    """The newest that can be read."""
    error: DeltaimgError | None
    """The error of a newer one that cannot be read."""


NOTHING_SAID = Said(None, None)


def list_annotations(repository: Repository, image: str | None = None) -> AnnotationNames:
    """Return the names of annotations, of the snapshots of one image or of all."""
    names: AnnotationNames = defaultdict(list)
    for found in repository.objects.list(ANNOTATIONS if image is None else f"{ANNOTATIONS}{image}/"):
        if parts := split_annotation_name(found.name):
            names[parts[:2]].append(found.name)
    return names


def load_said(repository: Repository, ref: SnapshotRef, names: AnnotationNames | None = None) -> Said:
    """Return the present annotation of a snapshot.

    Args:
        names: a listing, so that not each snapshot needs one of its own.
    """
    for _ in range(_TRIES):
        if names is None:
            names = list_annotations(repository, ref.image)
        try:
            return _load(repository, names.get((ref.image, ref.id), []))
        except ObjectNotFound:
            names = None  # it was replaced since the listing
    return NOTHING_SAID


def annotate(
    repository: Repository,
    manifest: Manifest,
    lock: ImageLock,
    now: datetime,
    change: Callable[[Annotation], Annotation],
) -> Annotation:
    """Change the annotation of a snapshot, under its image's lock, and return the new one.

    Args:
        change: called with the present annotation.

    Raises:
        LockLost: the lock was removed; nothing was changed.
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
            continue  # a run that has since lost the lock wrote it just now
        _withdraw_if_lost(repository, lock, after)
        remove_annotations(repository, [names])
        return after
    raise RepositoryLocked(f"the annotation of {ref.label}", "another process that changes it")


def remove_orphans(repository: Repository, confirm: Callable[[], None]) -> int:
    """Remove the annotations of deleted snapshots, and return their size: a forget may have been interrupted before it did.

    Annotations are listed before snapshots, so that those of new snapshots are not among them.

    Args:
        confirm: raises if the lock is lost.
    """
    found = [(each, split_annotation_name(each.name)) for each in repository.objects.list(ANNOTATIONS)]
    known = {(ref.image, ref.id) for ref in (*repository.list_snapshots(), *repository.list_quarantined())}
    orphans = [each for each, parts in found if parts is not None and parts[:2] not in known]
    repository.objects.delete_all([each.name for each in orphans], confirm)
    return sum(each.size_bytes for each in orphans)


def remove_annotations(repository: Repository, of_snapshots: Iterable[list[str]]) -> None:
    """Remove the annotations of some snapshots, given the oldest first: the newest last, so that no older one counts again."""
    listed = list(of_snapshots)
    repository.objects.delete_all([name for names in listed for name in names[:-1]])
    repository.objects.delete_all([name for names in listed for name in names[-1:]])


def _say_nothing(manifest: Manifest) -> Annotation:
    """Return the annotation that a snapshot has by its manifest."""
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
    """Return the content of annotations, the oldest first; raises ObjectNotFound if one was deleted."""
    error: DeltaimgError | None = None
    for name in reversed(names):
        try:
            return Said(repository.objects.get(ANNOTATION, name), error)
        except (IntegrityError, UnsupportedFormat) as problem:
            error = error or problem
    return Said(None, error)


def _withdraw_if_lost(repository: Repository, lock: ImageLock, annotation: Annotation) -> None:
    """Remove an annotation that was written just after the lock was lost: another run may have written one meanwhile."""
    try:
        lock.check()
    except LockLost:
        repository.objects.delete(annotation.object_name)
        raise
