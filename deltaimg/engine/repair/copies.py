# SPDX-License-Identifier: Apache-2.0
"""Objects that a damaged repository takes whole from another copy of itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

from deltaimg.engine.check.findings import FindingKind
from deltaimg.engine.check.run import Checker
from deltaimg.errors import DeltaimgError, IntegrityError, StoreError, UnsupportedFormat
from deltaimg.format.annotation import ANNOTATIONS, parse_annotation
from deltaimg.format.framing import name_object
from deltaimg.format.manifest import SNAPSHOTS, Manifest, parse_manifest
from deltaimg.format.map import MAPS
from deltaimg.repo.quarantine import keep_aside
from deltaimg.repo.repository import Repository


def find_copies(checker: Checker, copy: Repository) -> list[str]:
    """Return the objects that are damaged or missing here and whole in the copy, what they need before them."""
    wanted = checker.findings.names(FindingKind.DAMAGED, FindingKind.MISSING)
    named = [name for name in sorted(wanted) if name.partition("/")[1]]
    names: dict[str, None] = {}
    for name in named:
        if _is_whole(copy, name):
            names[name] = None
            if name.startswith(SNAPSHOTS):
                names |= dict.fromkeys(_needs_of(checker, copy, parse_manifest(copy.store.get(name), name)))
    # Manifests last: what they name comes before them.
    return sorted(names, key=lambda name: (name.startswith(SNAPSHOTS), name))


def copy_objects(
    repository: Repository, copy: Repository, names: list[str], check_lock: Callable[[], None]
) -> list[str]:
    """Take objects from the copy; return the names of damaged ones whose bytes were put aside.

    Each takes the place of the damaged one at once: a manifest that was away for a moment would be one that was forgotten.
    """
    aside = []
    for name in names:
        data = copy.store.get(name)
        try:
            found = repository.store.get(name)
        except DeltaimgError:
            found = None
        if found is not None and found != data:
            keep_aside(repository.store, name, found)
            aside.append(name)
        if found != data:
            repository.store.replace(name, [data], check_lock)
    return aside


def _needs_of(checker: Checker, copy: Repository, manifest: Manifest) -> Iterator[str]:
    """Yield the maps that a snapshot lists, that are not here and are whole in the copy."""
    for name in (MAPS + digest for digest in manifest.maps):
        if name not in checker.sizes and _is_whole(copy, name):
            yield name


def _is_whole(copy: Repository, name: str) -> bool:
    """Tell whether the copy has an object as its name says that it was written."""
    with suppress(IntegrityError, StoreError, UnsupportedFormat):
        data = copy.store.get(name)
        if name.startswith(SNAPSHOTS):
            parse_manifest(data, name)
            return True
        if name.startswith(ANNOTATIONS):
            parse_annotation(data, name)
            return True
        return name_object([data]) == name.rpartition("/")[2]
    return False
