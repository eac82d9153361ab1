# SPDX-License-Identifier: Apache-2.0
"""What a repair has to do, derived from a check that read all packs."""

from __future__ import annotations

import numpy as np
from msgspec import Struct

from deltaimg.arrays import distinct
from deltaimg.engine.check.findings import FindingKind
from deltaimg.engine.check.run import Checker
from deltaimg.engine.repair.record_verifier import find_records, index_records
from deltaimg.errors import IntegrityError, StoreError, UnsupportedFormat
from deltaimg.format.annotation import ANNOTATIONS
from deltaimg.format.deletion import DELETIONS
from deltaimg.format.framing import name_object
from deltaimg.format.index import INDEXES, IndexObject
from deltaimg.format.manifest import SNAPSHOTS
from deltaimg.format.pack import PACKS, pack_name
from deltaimg.format.verified import VERIFIED
from deltaimg.repo.deletions import load_deletions
from deltaimg.repo.index import LoadedIndex
from deltaimg.repo.index_edit import select_entries
from deltaimg.repo.keys import digest_of, has_own_digest
from deltaimg.repo.object_kinds import INDEX, MANIFEST
from deltaimg.repo.pack_reader import is_bad_sector, read_damaged_pack
from deltaimg.repo.repository import Repository


class RepairPlan(Struct, frozen=True):
    """The steps of a repair, as data."""

    damaged: set[str]
    """Objects to quarantine."""
    index: LoadedIndex
    """All records in packs, without digests; a record in an undamaged pack is preferred."""
    scanned: list[IndexObject]
    """Undamaged packs that need an index, read record by record."""
    salvage: dict[str, dict[int, bytes]]
    """Of each damaged pack, the offsets and ids of good records that are in no undamaged pack."""
    lost: dict[bytes, int]
    """Records that snapshots need and that are in no pack, and the size of their blocks."""
    wanted_ids: set[bytes]
    """All records whose digests the repair will ask for."""


def plan_repair(checker: Checker) -> RepairPlan:
    """Return the plan; reads the packs that no index names, or that one describes wrongly."""
    damaged = {
        name
        for name in checker.findings.names(FindingKind.DAMAGED, FindingKind.UNREADABLE)
        # Annotations stay: without its annotation a pinned snapshot would count as not pinned.
        if name in checker.sizes and not name.startswith(ANNOTATIONS) and _is_damaged_still(checker.repository, name)
    }
    # Lists of deletions and the record of verified packs can be quarantined: prune and verify start new ones.
    damaged |= {
        name for name in checker.findings.names(FindingKind.DAMAGED) if name == VERIFIED or name.startswith(DELETIONS)
    }
    kept = _known_places(checker)
    scanned, unsound = _scan(checker)
    damaged |= {pack_name(each.packs[0]) for each in unsound}
    bad_digests = {digest_of(name) for name in damaged if name.startswith(PACKS)}
    index = LoadedIndex(
        {str(number): each for number, each in enumerate([*kept, *scanned, *unsound])}, pending=bad_digests
    )
    salvage = _find_salvage(index)
    lost = _find_lost(checker, index, [*kept, *scanned, *unsound])
    catalog = checker.catalog
    ids = [catalog.entries["id"][catalog.has_place & ~catalog.has_digests], *(each.entries["id"] for each in scanned)]
    wanted = {row.tobytes() for rows in ids for row in rows} | lost.keys()
    wanted |= {record_id for places in salvage.values() for record_id in places.values()}
    return RepairPlan(damaged, index, scanned, salvage, lost, wanted)


def _is_damaged_still(repository: Repository, name: str) -> bool:
    """Read an object again before it is quarantined: one failed read must not cost a good manifest.

    What a disk cannot read the second time either is as good as damaged. It is moved, and may be read again one day.
    """
    try:
        data = repository.objects.get_bytes(name)
        if name.startswith(SNAPSHOTS):
            repository.objects.parse(MANIFEST, name, data)
            return False
        return not has_own_digest(name, data)
    except StoreError as error:
        return is_bad_sector(error)
    except (IntegrityError, UnsupportedFormat):
        return True


def is_restored(repository: Repository, name: str) -> bool:
    """Return whether an object that was damaged or missing is present again, byte for byte."""
    try:
        return has_own_digest(name, repository.objects.get_bytes(name))
    except (StoreError, IntegrityError):
        return False


def read_index(repository: Repository, name: str) -> IndexObject:
    """Return the index object of this name; raises as `Objects.get`."""
    return repository.objects.get(INDEX, name)


def _known_places(checker: Checker) -> list[IndexObject]:
    """Return the index objects, reduced to the entries whose records are where the index says."""
    catalog = checker.catalog
    return [
        select_entries(read_index(checker.repository, name), catalog.has_place[catalog.entries_of(number)])
        for number, name in enumerate(catalog.index_names)
    ]


def _scan(checker: Checker) -> tuple[list[IndexObject], list[IndexObject]]:
    """Read packs that no index names, and those about which an index is wrong; return the undamaged ones and the others.

    A pack that no index names was left by a run that died, or is about to be deleted, unless part of the index is lost.
    """
    catalog, objects = checker.catalog, checker.repository.objects
    pending = {pack_name(pack) for each in load_deletions(checker.repository) for pack in each.objects.packs}
    names = {catalog.packs[number] for number in distinct(catalog.entries["pack"][~catalog.has_place]).tolist()}
    names &= checker.sizes.keys()
    bad = checker.findings.names(FindingKind.DAMAGED, FindingKind.UNREADABLE)
    is_lost = bool(checker.unknown) or bool((catalog.sources < 0).any())
    if is_lost or any(name.startswith(INDEXES) for name in bad):
        names |= {name for name in checker.sizes if name.startswith(PACKS)} - set(catalog.packs) - pending
    sound: list[IndexObject] = []
    unsound: list[IndexObject] = []
    for name in sorted(names):
        data = read_damaged_pack(objects, name)
        digest = digest_of(name)
        records = list(find_records(objects, name, data))
        content = index_records(digest, records)
        (sound if name_object([data]) == digest else unsound).append(content)
    return sound, unsound


def _find_salvage(index: LoadedIndex) -> dict[str, dict[int, bytes]]:
    """Return the records that are in damaged packs only."""
    salvage: dict[str, dict[int, bytes]] = {}
    numbers = np.flatnonzero(index.is_pending)
    if not len(numbers):
        return salvage
    chosen = distinct(index.find(index.entries["id"][numbers]))
    for entry in index.entries[chosen[index.is_pending[chosen]]]:
        places = salvage.setdefault(pack_name(index.packs[int(entry["pack"])]), {})
        places[int(entry["offset"])] = entry["id"].tobytes()
    return salvage


def _find_lost(checker: Checker, index: LoadedIndex, objects: list[IndexObject]) -> dict[bytes, int]:
    """Return the records that are needed and are in no pack: by maps, and as sources of records that are there."""
    catalog = checker.catalog
    lost = dict(checker.unknown)
    for row in catalog.entries[checker.is_used & ~catalog.has_place]:
        lost[row["id"].tobytes()] = 1 << int(row["block_shift"])
    for each in objects:
        if len(each.links.ids):
            block_bytes = 1 << int(each.entries["block_shift"].max())
            missing = each.links.ids[index.find(each.links.ids) < 0]
            lost |= {row.tobytes(): block_bytes for row in missing if row.tobytes() not in lost}
    ids = list(lost)
    if not ids:
        return lost
    found = index.find(np.frombuffer(b"".join(ids), np.uint8).reshape(-1, 16)) >= 0
    return {record_id: lost[record_id] for record_id, is_found in zip(ids, found.tolist(), strict=True) if not is_found}
