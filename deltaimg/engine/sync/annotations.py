# SPDX-License-Identifier: Apache-2.0
"""Annotations travel with their snapshots: one of the destination that has none gets the newest of the source.

A snapshot that has an annotation in the destination keeps that: whoever pins it there pins it there.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress

from msgspec import Struct

from deltaimg.errors import IntegrityError, ObjectExists, ObjectNotFound, UnsupportedFormat
from deltaimg.repo.annotations import list_annotations
from deltaimg.repo.lock import ImageLock
from deltaimg.repo.object_kinds import ANNOTATION
from deltaimg.repo.repository import Repository, SnapshotRef


class CopiedAnnotations(Struct, frozen=True):
    """How many bytes of annotations were copied, and why others were not."""

    stored_bytes: int = 0
    problems: tuple[str, ...] = ()


def copy_annotations(
    source: Repository, destination: Repository, lock: ImageLock, image: str, there: Collection[SnapshotRef]
) -> CopiedAnnotations:
    """Copy annotations of an image's snapshots that the destination has, as far as they can be read.

    Args:
        lock: the destination's, of the image. there: the snapshots of the image in the destination.
    """
    said = list_annotations(source, image)
    wanted = [ref for ref in sorted(there) if said.get((ref.image, ref.id))]
    if not wanted:
        return CopiedAnnotations()
    known = list_annotations(destination, image)
    stored_bytes = 0
    problems: list[str] = []
    for ref in wanted:
        if known.get((ref.image, ref.id)):
            continue
        name = said[ref.image, ref.id][-1]
        try:
            annotation, data = source.objects.get_with_bytes(ANNOTATION, name)
        except ObjectNotFound:
            continue  # it was changed just now: the next run brings the new one
        except (IntegrityError, UnsupportedFormat) as error:
            problems.append(f"{source.objects.location}: {error}; {ref.label} has no annotation in the destination")
            continue
        with suppress(ObjectExists):
            if source.objects.is_sealed_like(destination.objects):
                stored_bytes += destination.objects.put_bytes(name, [data], lock.check)
            else:
                stored_bytes += destination.objects.put(ANNOTATION, name, annotation, lock.check)
    return CopiedAnnotations(stored_bytes, tuple(problems))
