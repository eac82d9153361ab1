# SPDX-License-Identifier: Apache-2.0
"""Undamaged objects taken from another copy of the repository, or from where a symbolic link in their place points.

A member of the repository's family serves as well: packs, maps, manifests and annotations have the same names in both. What it
says of a snapshot of its own accord, and snapshots that this repository never had, are not taken. Nor is anything as it is of a
member that seals otherwise, or not at all: here it would not open, and might be read without a key. A sync copies such
snapshots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from deltaimg.engine.check.findings import FindingKind
from deltaimg.engine.check.run import Checker
from deltaimg.errors import DeltaimgError, IntegrityError, NotAnObject, StoreError, UnsupportedFormat
from deltaimg.format.annotation import ANNOTATIONS, split_annotation_name
from deltaimg.format.manifest import SNAPSHOTS
from deltaimg.format.map import MAPS
from deltaimg.repo.annotations import list_annotations
from deltaimg.repo.keys import QUARANTINE, find_kind, has_own_digest, is_named_by_digest
from deltaimg.repo.object_kinds import ANNOTATION, MANIFEST, MAP
from deltaimg.repo.quarantine import copy_to_quarantine, move_to_quarantine
from deltaimg.repo.repository import Repository, SnapshotRef

Copies = dict[str, Repository]
"""Names of objects, and the repository that has each undamaged."""


def find_copies(checker: Checker, copy: Repository | None) -> Copies:
    """Return the objects that are damaged or missing here and undamaged elsewhere; an object follows what it refers to.

    Each call may find more: what a manifest refers to is found missing only once the manifest has been copied.
    """
    repository = checker.repository
    found: Copies = {}
    for name in sorted(_list_replaced(checker)):
        if _is_whole(repository, name):
            found[name] = repository
    if copy is not None and repository.objects.is_sealed_like(copy.objects):
        for name in sorted(_list_wanted(checker, copy) - found.keys()):
            if _is_whole(copy, name):
                found[name] = copy
                found |= {each: copy for each in _list_maps(checker, copy, name) if each not in found}
    # Manifests last, after everything that they refer to.
    return dict(sorted(found.items(), key=lambda each: (each[0].startswith(SNAPSHOTS), each[0])))


def copy_objects(repository: Repository, copies: Copies, check_lock: Callable[[], None]) -> list[str]:
    """Copy undamaged objects; return the names of the damaged ones that were quarantined.

    Each replaces the damaged one atomically: a manifest that is absent for a moment would be taken for a forgotten snapshot.
    """
    quarantined = []
    for name, copy in copies.items():
        data = copy.objects.get_bytes(name)
        if keep_what_is_replaced(repository, name, data):
            quarantined.append(name)
        check_lock()
        repository.objects.take_from(copy.objects, name, data, check_lock)
    return quarantined


def keep_what_is_replaced(repository: Repository, name: str, data: bytes) -> bool:
    """Keep the bytes of an object that is to be replaced by `data`; return whether there was anything to keep."""
    try:
        found = repository.objects.get_bytes(name)
    except NotAnObject:
        move_to_quarantine(repository.objects, name)
        return True
    except DeltaimgError:
        return False
    if found == data:
        return False
    copy_to_quarantine(repository.objects, name, found)
    return True


def _list_replaced(checker: Checker) -> Iterator[str]:
    """Yield names of objects in whose place there is something else: a link, a folder."""
    for name in checker.findings.names(FindingKind.FOREIGN):
        if _can_be_copied(name) and name not in checker.sizes:
            yield name


def _list_wanted(checker: Checker, copy: Repository) -> set[str]:
    """Return names of objects that should be here."""
    repository, sizes = checker.repository, checker.sizes
    wanted = {*checker.findings.names(FindingKind.DAMAGED, FindingKind.MISSING, FindingKind.UNREADABLE)}
    wanted |= set(_list_replaced(checker))
    quarantined = {ref.object_name for ref in repository.list_quarantined()} - sizes.keys()
    wanted |= quarantined
    is_copy = copy.config.repository_id == repository.config.repository_id
    if not any(name.startswith(SNAPSHOTS) for name in sizes) and any(name.startswith(MAPS) for name in sizes):
        # All manifests are lost.
        wanted |= {ref.object_name for ref in copy.list_snapshots() if is_copy or _had_snapshot(checker, copy, ref)}
    if is_copy:
        wanted |= set(_list_lost_annotations(repository, copy))
    return {name for name in wanted if _can_be_copied(name)}


def _had_snapshot(checker: Checker, member: Repository, ref: SnapshotRef) -> bool:
    """Return whether a snapshot of a member of the family was one of this repository: its newest map layer is here."""
    with suppress(IntegrityError, StoreError, UnsupportedFormat):
        return MAP.name_of(member.load_manifest(ref).maps[-1]) in checker.sizes
    return False


def _list_lost_annotations(repository: Repository, copy: Repository) -> Iterator[str]:
    """Yield the copy's annotations that are newer than all of this repository: an annotation is replaced by newer ones only."""
    own, known = list_annotations(repository), {(ref.image, ref.id) for ref in repository.list_snapshots()}
    for snapshot, names in list_annotations(copy).items():
        if snapshot in known and _numbers(names)[-1] > max(_numbers(own.get(snapshot, [])), default=0):
            yield max(names)


def _numbers(names: Iterable[str]) -> list[int]:
    parts = (split_annotation_name(name) for name in names)
    return sorted(each[2] for each in parts if each is not None)


def _list_maps(checker: Checker, copy: Repository, name: str) -> Iterator[str]:
    """Yield the maps of a snapshot of the copy that are missing here and undamaged there."""
    if not name.startswith(SNAPSHOTS):
        return
    for each in (MAP.name_of(digest) for digest in copy.objects.get(MANIFEST, name).maps):
        if each not in checker.sizes and _is_whole(copy, each):
            yield each


def _can_be_copied(name: str) -> bool:
    """Return whether objects of this name never change, so that any copy is the same."""
    is_ours = find_kind(name) is not None and not name.startswith(QUARANTINE)
    return is_ours and (is_named_by_digest(name) or name.startswith((SNAPSHOTS, ANNOTATIONS)))


def _is_whole(copy: Repository, name: str) -> bool:
    """Return whether a repository has the object, and its content matches its name."""
    with suppress(IntegrityError, StoreError, UnsupportedFormat):
        data = copy.objects.get_bytes(name)
        if name.startswith(SNAPSHOTS):
            copy.objects.parse(MANIFEST, name, data)
            return True
        if name.startswith(ANNOTATIONS):
            copy.objects.parse(ANNOTATION, name, data)
            return True
        return has_own_digest(name, data)
    return False
