# SPDX-License-Identifier: Apache-2.0
"""Which extents of which snapshots are damaged, derived from a check; no content is read."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.engine.check.run import Checker
from deltaimg.engine.content.snapshot import SnapshotContent
from deltaimg.errors import IntegrityError, SnapshotError, SnapshotNotFound, StoreError, UnsupportedFormat
from deltaimg.format.pack import pack_name
from deltaimg.model import DamagedExtent
from deltaimg.repo.index import LoadedIndex, load_index
from deltaimg.repo.repository import Repository, SnapshotRef
from deltaimg.repo.snapshots import load_snapshot


class SnapshotDamage(Struct, frozen=True):
    """A snapshot, and the extents that cannot be restored."""

    ref: SnapshotRef
    is_whole: bool
    """Whether nothing of it can be restored: its manifest, a map or digests that it needs are lost."""
    extents: tuple[DamagedExtent, ...]


def list_damage(repository: Repository, checker: Checker) -> tuple[SnapshotDamage, ...]:
    """Return every snapshot with damage, those included whose manifests are in quarantine."""
    index = load_index(repository)  # again: the repair has written and quarantined index objects
    is_lost = _find_lost(checker, index)
    damage = [_describe(repository, ref, index, is_lost) for ref in repository.list_snapshots()]
    known = {ref.object_name for ref in repository.list_snapshots()}
    for ref, names in repository.list_quarantined().items():
        if ref.object_name not in known:
            reason = f"its manifest is damaged, and is kept as {names[0]}"
            damage.append(SnapshotDamage(ref, True, (DamagedExtent(0, 0, reason),)))
    return tuple(each for each in damage if each is not None)


def _find_lost(checker: Checker, index: LoadedIndex) -> npt.NDArray[np.bool_]:
    """Return which entries of the index name an offset at which the record is missing."""
    catalog = checker.catalog
    lost = catalog.entries[~catalog.has_place]
    places = {(catalog.packs[pack], offset) for pack, offset in lost[["pack", "offset"]].tolist()}
    named = {name for name, _ in places}
    is_named = np.array([pack_name(digest) in named for digest in index.packs], np.bool_)
    is_lost = np.zeros(len(index), np.bool_)
    for entry in np.flatnonzero(is_named[index.entries["pack"]]).tolist() if len(is_named) else ():
        pack, offset = index.entries[["pack", "offset"]][entry].tolist()
        is_lost[entry] = (pack_name(index.packs[pack]), offset) in places
    return is_lost


def _describe(
    repository: Repository, ref: SnapshotRef, index: LoadedIndex, is_lost: npt.NDArray[np.bool_]
) -> SnapshotDamage | None:
    size_bytes = 0
    try:
        manifest = load_snapshot(repository, ref).manifest
        size_bytes = manifest.size_bytes
        content = SnapshotContent(repository, manifest, index)
    except SnapshotNotFound:
        return None  # It was forgotten since it was listed.
    except (SnapshotError, IntegrityError, StoreError, UnsupportedFormat) as error:
        return SnapshotDamage(ref, True, (DamagedExtent(0, size_bytes, str(error)),))
    entries = content.table.entries
    lost = content.closure[is_lost[entries[content.closure]]]
    if not len(lost):
        return None
    affected = content.dependents_of(lost.tolist())
    reasons = {
        record: f"{content.table.pack_of(record)} does not hold the record at byte "
        f"{int(index.entries['offset'][entries[record]])} any more"
        for record in lost.tolist()
    }
    extents = sorted(
        DamagedExtent(each.start, each.end, reasons[cause])
        for record, cause in affected.items()
        for each in content.extents_of(record)
    )
    return SnapshotDamage(ref, False, _join(extents))


def _join(extents: list[DamagedExtent]) -> tuple[DamagedExtent, ...]:
    """Join extents that touch, with the reason of the first."""
    joined: list[DamagedExtent] = []
    for each in extents:
        if joined and joined[-1].end >= each.start:
            last = joined[-1]
            joined[-1] = DamagedExtent(last.start, max(each.end, last.end), last.reason)
        else:
            joined.append(each)
    return tuple(joined)
