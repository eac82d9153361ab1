# SPDX-License-Identifier: Apache-2.0
"""Objects that a damaged repository takes whole from another copy of itself, or from where a link in their place leads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from deltaimg.engine.check.findings import FindingKind
from deltaimg.engine.check.run import Checker
from deltaimg.errors import DeltaimgError, IntegrityError, NotAnObject, StoreError, UnsupportedFormat
from deltaimg.format.annotation import ANNOTATIONS, parse_annotation, split_annotation_name
from deltaimg.format.manifest import SNAPSHOTS, parse_manifest
from deltaimg.format.map import MAPS
from deltaimg.repo.annotations import list_annotations
from deltaimg.repo.keys import QUARANTINE, find_kind, has_own_digest, is_named_by_digest
from deltaimg.repo.object_kinds import MANIFEST, MAP
from deltaimg.repo.quarantine import keep_aside, put_aside
from deltaimg.repo.repository import Repository

Copies = dict[str, Repository]
"""Names of objects, and where each is whole."""


def find_copies(checker: Checker, copy: Repository | None) -> Copies:
    """Return the objects that are damaged or missing here and whole elsewhere, what they need before them.

    Each call may find more: what a manifest needs that came from the copy is missing only once the manifest is there.
    """
    repository = checker.repository
    found: Copies = {}
    for name in sorted(_list_replaced(checker)):
        if _is_whole(repository, name):
            found[name] = repository
    if copy is not None:
        for name in sorted(_list_wanted(checker, copy) - found.keys()):
            if _is_whole(copy, name):
                found[name] = copy
                found |= {each: copy for each in _list_maps(checker, copy, name) if each not in found}
    # Manifests last: what they name comes before them.
    return dict(sorted(found.items(), key=lambda each: (each[0].startswith(SNAPSHOTS), each[0])))


def copy_objects(repository: Repository, copies: Copies, check_lock: Callable[[], None]) -> list[str]:
    """Take objects from where they are whole; return the names of damaged ones that were put aside.

    Each takes the place of the damaged one at once: a manifest that was away for a moment would be one that was forgotten.
    """
    aside = []
    for name, copy in copies.items():
        data = copy.objects.get_bytes(name)
        if keep_what_is_replaced(repository, name, data):
            aside.append(name)
        check_lock()
        repository.objects.take_from(copy.objects, name, data, check_lock)
    return aside


def keep_what_is_replaced(repository: Repository, name: str, data: bytes) -> bool:
    """Keep the bytes of an object that is to be replaced by `data`; return whether there was anything to keep."""
    try:
        found = repository.objects.get_bytes(name)
    except NotAnObject:
        put_aside(repository.objects, name)
        return True
    except DeltaimgError:
        return False
    if found == data:
        return False
    keep_aside(repository.objects, name, found)
    return True


def _list_replaced(checker: Checker) -> Iterator[str]:
    """Yield names of objects where something else lies: a link, a folder."""
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
    if not any(name.startswith(SNAPSHOTS) for name in sizes) and any(name.startswith(MAPS) for name in sizes):
        wanted |= {ref.object_name for ref in copy.list_snapshots()}  # Nobody forgets all that there is.
    wanted |= set(_list_lost_annotations(repository, copy))
    return {name for name in wanted if _can_be_copied(name)}


def _list_lost_annotations(repository: Repository, copy: Repository) -> Iterator[str]:
    """Yield what the copy has that was said later than all that is here: it is written once, and replaced by what is newer."""
    own, known = list_annotations(repository), {(ref.image, ref.id) for ref in repository.list_snapshots()}
    for snapshot, names in list_annotations(copy).items():
        if snapshot in known and _numbers(names)[-1] > max(_numbers(own.get(snapshot, [])), default=0):
            yield max(names)


def _numbers(names: Iterable[str]) -> list[int]:
    parts = (split_annotation_name(name) for name in names)
    return sorted(each[2] for each in parts if each is not None)


def _list_maps(checker: Checker, copy: Repository, name: str) -> Iterator[str]:
    """Yield the maps that a snapshot of the copy lists, that are not here and are whole there."""
    if not name.startswith(SNAPSHOTS):
        return
    for each in (MAP.name_of(digest) for digest in copy.objects.get(MANIFEST, name).maps):
        if each not in checker.sizes and _is_whole(copy, each):
            yield each


def _can_be_copied(name: str) -> bool:
    """Tell whether an object never changes, so that a copy of it is it."""
    is_ours = find_kind(name) is not None and not name.startswith(QUARANTINE)
    return is_ours and (is_named_by_digest(name) or name.startswith((SNAPSHOTS, ANNOTATIONS)))


def _is_whole(copy: Repository, name: str) -> bool:
    """Tell whether a repository has an object as its name says that it was written."""
    with suppress(IntegrityError, StoreError, UnsupportedFormat):
        data = copy.objects.get_bytes(name)
        if name.startswith(SNAPSHOTS):
            parse_manifest(data, name)
            return True
        if name.startswith(ANNOTATIONS):
            parse_annotation(data, name)
            return True
        return has_own_digest(name, data)
    return False
