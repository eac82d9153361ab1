# SPDX-License-Identifier: Apache-2.0
"""The snapshots of a repository: manifests with their annotations, and damaged ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from msgspec import Struct

from deltaimg.errors import (
    DeltaimgError,
    IntegrityError,
    ObjectNotFound,
    SnapshotError,
    SnapshotIncomplete,
    SnapshotNotFound,
    StoreError,
    UnsupportedFormat,
)
from deltaimg.format.annotation import Annotation
from deltaimg.format.manifest import Manifest
from deltaimg.repo.annotations import NOTHING_SAID, AnnotationNames, Said, list_annotations, load_said
from deltaimg.repo.pack_reader import is_bad_sector
from deltaimg.repo.repository import Repository, SnapshotRef


class Snapshot(Struct, frozen=True):
    """A snapshot whose manifest can be read."""

    manifest: Manifest
    said: Said = NOTHING_SAID

    @property
    def ref(self) -> SnapshotRef:
        """What lists show of it."""
        return SnapshotRef.of(self.manifest)

    @property
    def label(self) -> str:
        """The snapshot as people name it."""
        return self.manifest.label

    @property
    def pin_reason(self) -> str | None:
        """Why the snapshot is pinned, perhaps an empty text; None if it is not."""
        return self._annotation.pinned if self._annotation else None

    @property
    def tags(self) -> tuple[str, ...]:
        """Its present tags."""
        return self._annotation.tags if self._annotation else self.manifest.tags

    @property
    def comment(self) -> str:
        """Its present comment."""
        return self._annotation.comment if self._annotation else self.manifest.comment

    @property
    def _annotation(self) -> Annotation | None:
        return self.said.annotation


class DamagedSnapshot(Struct, frozen=True):
    """A snapshot whose manifest cannot be read, or was damaged and is in quarantine."""

    ref: SnapshotRef
    error: DeltaimgError
    said: Said = NOTHING_SAID

    @property
    def label(self) -> str:
        """The snapshot as people name it."""
        return self.ref.label

    @property
    def pin_reason(self) -> str | None:
        """As of a `Snapshot`, from its annotation."""
        return self.said.annotation.pinned if self.said.annotation else None


AnySnapshot = Snapshot | DamagedSnapshot


def load_snapshot(repository: Repository, ref: SnapshotRef) -> Snapshot:
    """Return one snapshot.

    Raises:
        IntegrityError, UnsupportedFormat: its manifest is damaged, or lies in quarantine, or is of a newer version.
        SnapshotNotFound: it was forgotten since it was listed.
    """
    try:
        return Snapshot(repository.load_manifest(ref), load_said(repository, ref))
    except ObjectNotFound as error:
        if names := repository.list_quarantined(ref.image).get(ref):
            raise _in_quarantine(names) from error
        raise _forgotten_now(ref) from error


def is_of_one_snapshot(error: DeltaimgError) -> bool:
    """Return whether an error is about a snapshot, so that others can be read: damage, a bad sector, one that is gone."""
    if isinstance(error, StoreError) and is_bad_sector(error):
        return True
    return isinstance(error, IntegrityError | ObjectNotFound | SnapshotError | UnsupportedFormat)


@contextmanager
def expect_snapshot(repository: Repository, ref: SnapshotRef) -> Iterator[None]:
    """Raise SnapshotNotFound in place of what a snapshot meets that was forgotten, and pruned, while it was read."""
    try:
        yield
    except (IntegrityError, ObjectNotFound, SnapshotIncomplete) as error:
        if repository.has_snapshot(ref):
            raise
        raise _forgotten_now(ref) from error


def load_snapshots(repository: Repository, image: str | None = None) -> Iterator[Snapshot | DamagedSnapshot]:
    """Yield the snapshots of one image or of all, oldest first within an image; one that is forgotten meanwhile is left out."""
    names = list_annotations(repository, image)
    quarantined = repository.list_quarantined(image)
    refs = sorted({*repository.list_snapshots(image), *quarantined})
    with repository.objects.reading_ahead(_list_objects(refs, names)):
        for ref in refs:
            said = load_said(repository, ref, names)
            try:
                yield Snapshot(repository.load_manifest(ref), said)
            except ObjectNotFound:
                if ref in quarantined:
                    yield DamagedSnapshot(ref, _in_quarantine(quarantined[ref]), said)
            except (IntegrityError, UnsupportedFormat, StoreError) as error:
                yield DamagedSnapshot(ref, error, said)


def _list_objects(refs: Iterable[SnapshotRef], names: AnnotationNames) -> Iterator[str]:
    """Yield what is read of each snapshot: its newest annotation, and its manifest."""
    for ref in refs:
        yield from names.get((ref.image, ref.id), [])[-1:]
        yield ref.object_name


def _in_quarantine(names: list[str]) -> IntegrityError:
    return IntegrityError(names[0], 0, "is a damaged manifest that a repair has moved to quarantine")


def _forgotten_now(ref: SnapshotRef) -> SnapshotNotFound:
    return SnapshotNotFound(ref.label, hint="it was forgotten just now")
