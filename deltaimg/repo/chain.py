# SPDX-License-Identifier: Apache-2.0
"""From a chain of maps to one map that covers the image, and back to a map object.

Restoring never replays nights: maps are overlaid here, newest on top, and each block then names the slot that holds it.
A new full map is written now and then, so that a chain of any length costs little more to resolve than one full map.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deltaimg.arrays import FIRST_SLOT, Runs, clip_runs, empty_runs, end_blocks
from deltaimg.errors import BrokenChain, IntegrityError
from deltaimg.format.manifest import Manifest
from deltaimg.format.map import MAPS, MapObject, build_map, parse_map
from deltaimg.kernels import overlay_runs, subtract_runs
from deltaimg.model import count_blocks
from deltaimg.repo.repository import Repository
from deltaimg.repo.slots import SlotTable, renumber_runs

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
    runs = empty_runs()
    chain_bytes = 0
    for link in reversed(_follow_chain(repository, manifest)):
        name = MAPS + link.map
        data = repository.get_object(MAPS, link.map)
        content = parse_map(data, name)
        if (
            content.block_count != count_blocks(link.size_bytes, link.block_bytes)
            or link.block_bytes != manifest.block_bytes
        ):
            raise IntegrityError(name, 0, f"is of another size than snapshot {link.label}")
        records = table.add_records(content.record_ids, content.record_slots, name)
        counts = content.record_slots.astype(np.int64)
        own_first = FIRST_SLOT + np.cumsum(counts) - counts
        own_runs = renumber_runs(content.runs, own_first, counts, table.first_slots[records])
        runs = overlay_runs(clip_runs(runs, 0, content.block_count), own_runs)
        chain_bytes = 0 if link.map_is_full else chain_bytes + len(data) + _LINK_COST_BYTES
    block_count = count_blocks(manifest.size_bytes, manifest.block_bytes)
    _check_cover(runs, block_count, MAPS + manifest.map)
    return ResolvedMap(runs, block_count, chain_bytes)


def encode_map(table: SlotTable, runs: Runs, base: ResolvedMap | None, block_count: int) -> tuple[bytes, bool]:
    """Return the map object for `runs`, which cover the image, and whether it is a full one.

    Args:
        base: what an incremental map is told apart from; without it the map is full.
    """
    if base is not None:
        changed = subtract_runs(runs, base.runs)
        incremental = _build(table, changed, block_count)
        chain_bytes = base.chain_bytes + len(incremental) + _LINK_COST_BYTES
        if chain_bytes < 16 * len(runs) + 64 * _LINK_COST_BYTES:
            return incremental, False
        full = _build(table, runs, block_count)
        if chain_bytes < len(full) + 64 * _LINK_COST_BYTES:
            return incremental, False
        return full, True
    return _build(table, runs, block_count), True


def _build(table: SlotTable, runs: Runs, block_count: int) -> bytes:
    used = table.used_records(runs)
    counts = table.slot_counts[used]
    own_first = FIRST_SLOT + np.cumsum(counts) - counts
    own_runs = renumber_runs(runs, table.first_slots[used], counts, own_first)
    own_runs = overlay_runs(own_runs, empty_runs())
    content = MapObject(block_count, table.record_ids[used], counts.astype(np.uint16), own_runs)
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


def _check_cover(runs: Runs, block_count: int, name: str) -> None:
    """Refuse a map with a gap; that no run passes the end was seen when each map was read."""
    ends = end_blocks(runs)
    is_whole = (
        len(runs) > 0
        and int(runs["first_block"][0]) == 0
        and int(ends[-1]) == block_count
        and bool(np.all(ends[:-1] == runs["first_block"][1:]))
    )
    if not is_whole and not (block_count == 0 and len(runs) == 0):
        raise IntegrityError(name, 0, "does not cover its image")
