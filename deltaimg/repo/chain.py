# SPDX-License-Identifier: Apache-2.0
"""From a chain of maps to one map that covers the image, and back to a map object.

Restoring never replays nights: maps are overlaid here, newest on top, and each block then names the slot that holds it.
A new full map is written now and then, so that a chain of any length costs little more to resolve than one full map.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from deltaimg.arrays import FIRST_SLOT, Runs, clip_runs, empty_runs, end_blocks
from deltaimg.errors import BrokenChain, IntegrityError, ObjectNotFound
from deltaimg.format.manifest import Manifest
from deltaimg.format.map import MAPS, MapObject, build_map, parse_map
from deltaimg.kernels import overlay_runs, subtract_runs
from deltaimg.model import count_blocks
from deltaimg.repo.numbering import MapNumbers, RecordNumbers, renumber_runs
from deltaimg.repo.repository import Repository, SnapshotRef
from deltaimg.repo.slots import SlotTable

_TRIES = 3
_LINK_COST_BYTES = 2048
"""What one more manifest and map to fetch is worth, in bytes of map."""


@dataclass(frozen=True, slots=True)
class ResolvedMap:
    """A snapshot's whole map, in the slots of a `SlotTable`, and what resolving it took."""

    runs: Runs
    block_count: int
    chain_bytes: int
    """Size of the incremental maps since the full one, and the cost of fetching each."""


def resolve_map(repository: Repository, manifest: Manifest, table: SlotTable) -> ResolvedMap:
    """Overlay the maps from the newest full one up to `manifest`'s.

    Raises:
        BrokenChain: a base is missing. IntegrityError: a map is damaged or does not cover the image.
    """
    for _ in range(_TRIES - 1):
        with suppress(BrokenChain, ObjectNotFound):
            return _resolve(repository, manifest, table)
        # A forget may have given this snapshot or one below it another base meanwhile, and another map of the same content.
        with suppress(ObjectNotFound):
            manifest = repository.load_manifest(SnapshotRef.of(manifest))
    return _resolve(repository, manifest, table)


def _resolve(repository: Repository, manifest: Manifest, table: SlotTable) -> ResolvedMap:
    numbers, resolved = MapNumbers(), None
    for link in reversed(_follow_chain(repository, manifest)):
        content, map_bytes = load_map(repository, link)
        if link.block_bytes != manifest.block_bytes:
            raise IntegrityError(MAPS + link.map, 0, f"has blocks of another size than snapshot {manifest.label}")
        own_runs = numbers.add_map(content, MAPS + link.map)
        resolved = lay_map(resolved, own_runs, content.block_count, map_bytes, is_full=link.map_is_full)
    assert resolved is not None
    check_cover(resolved, MAPS + manifest.map)
    # Only now, for what is left: of what a later map covers, slots and records may be gone.
    runs = table.number_runs(numbers, resolved.runs, MAPS + manifest.map)
    # What is covered and still there may be what a backup encodes against.
    table.add_known(numbers.record_ids)
    return replace(resolved, runs=runs)


def load_map(repository: Repository, manifest: Manifest) -> tuple[MapObject, int]:
    """Return what a snapshot's own map says, and its size; raises IntegrityError if it is damaged or another image's."""
    name = MAPS + manifest.map
    data = repository.get_object(MAPS, manifest.map)
    content = parse_map(data, name)
    if content.block_count != count_blocks(manifest.size_bytes, manifest.block_bytes):
        raise IntegrityError(name, 0, f"is of another size than snapshot {manifest.label}")
    return content, len(data)


def lay_map(
    below: ResolvedMap | None, own_runs: Runs, block_count: int, map_bytes: int, *, is_full: bool
) -> ResolvedMap:
    """Lay a snapshot's own map, `map_bytes` long, on that of its base; both in the same numbering of slots.

    Args:
        below: None under a full map, which needs nothing below it.
    """
    base_runs = empty_runs() if below is None else clip_runs(below.runs, 0, block_count)
    chain_bytes = 0 if is_full or below is None else below.chain_bytes + map_bytes + _LINK_COST_BYTES
    return ResolvedMap(overlay_runs(base_runs, own_runs), block_count, chain_bytes)


def encode_map(numbers: RecordNumbers, runs: Runs, base: ResolvedMap | None, block_count: int) -> tuple[bytes, bool]:
    """Return the map object for `runs`, which cover the image, and whether it is a full one.

    Args:
        base: what an incremental map is told apart from; without it the map is full.
    """
    if base is not None:
        changed = subtract_runs(runs, base.runs)
        incremental = _build(numbers, changed, block_count)
        chain_bytes = base.chain_bytes + len(incremental) + _LINK_COST_BYTES
        if chain_bytes < 16 * len(runs) + 64 * _LINK_COST_BYTES:
            return incremental, False
        full = _build(numbers, runs, block_count)
        if chain_bytes < len(full) + 64 * _LINK_COST_BYTES:
            return incremental, False
        return full, True
    return _build(numbers, runs, block_count), True


def _build(numbers: RecordNumbers, runs: Runs, block_count: int) -> bytes:
    used = numbers.used_records(runs)
    counts = numbers.slot_counts[used]
    own_first = FIRST_SLOT + np.cumsum(counts) - counts
    own_runs = renumber_runs(runs, numbers.first_slots[used], counts, own_first)
    own_runs = overlay_runs(own_runs, empty_runs())
    content = MapObject(block_count, numbers.record_ids[used], counts.astype(np.uint16), own_runs)
    data = build_map(content)
    read_back = parse_map(data, "the new map")
    assert np.array_equal(read_back.runs, own_runs)
    return data


def _follow_chain(repository: Repository, manifest: Manifest) -> list[Manifest]:
    """Return `manifest` and its bases back to the newest full map."""
    links = [manifest]
    if manifest.map_is_full:
        return links
    refs = {ref.id: ref for ref in repository.list_snapshots(manifest.image)}
    while not links[-1].map_is_full:
        base = links[-1].base
        if base is None or base not in refs:
            raise BrokenChain(links[-1].label, base or "(none)")
        # Each is taken out, so that manifests that name each other in a circle end as a broken chain.
        links.append(repository.load_manifest(refs.pop(base)))
    return links


def check_cover(resolved: ResolvedMap, name: str) -> None:
    """Refuse a map with a gap; that no run passes the end was seen when each map was read."""
    ends = end_blocks(resolved.runs)
    is_whole = (
        len(ends) > 0
        and int(resolved.runs["first_block"][0]) == 0
        and int(ends[-1]) == resolved.block_count
        and bool(np.all(ends[:-1] == resolved.runs["first_block"][1:]))
    )
    if not is_whole and not (resolved.block_count == 0 and len(ends) == 0):
        raise IntegrityError(name, 0, "does not cover its image")
