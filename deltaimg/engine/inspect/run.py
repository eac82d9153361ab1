# SPDX-License-Identifier: Apache-2.0
"""What a snapshot or a repository consists of, from metadata only."""

from __future__ import annotations

from collections import Counter

import numpy as np
from msgspec import Struct

from deltaimg.arrays import FIRST_SLOT, HOLE, ZERO, count_run_blocks, distinct
from deltaimg.format.manifest import Manifest
from deltaimg.repo.index import LoadedIndex, load_index
from deltaimg.repo.layers import resolve_map
from deltaimg.repo.repository import Repository, SnapshotRef
from deltaimg.repo.slots import SlotTable
from deltaimg.repo.snapshots import DamagedSnapshot, Snapshot, expect_snapshot, load_snapshots


class SnapshotLayout(Struct, frozen=True):
    """What a snapshot's image consists of, and what restoring it reads; sizes in bytes, whole blocks."""

    data_bytes: int
    zero_bytes: int
    hole_bytes: int
    extents: int
    records: int
    """Those that only others are encoded against included."""
    record_bytes: int
    """What they are decoded to."""
    payload_bytes: int
    packs: int
    depth: int
    """Records that are decoded one after another, the first of them a literal: 0 without deltas."""

    @property
    def read_amplification(self) -> float:
        """Restore read amplification: bytes that a restore decodes, delta sources included, for each byte of data."""
        return self.record_bytes / self.data_bytes if self.data_bytes else 1.0


def inspect_snapshot(repository: Repository, manifest: Manifest, index: LoadedIndex) -> SnapshotLayout:
    """Overlay a snapshot's map layers and sum them up; raises SnapshotError, IntegrityError or StoreError."""
    table = SlotTable(repository, index)
    with expect_snapshot(repository, SnapshotRef.of(manifest)):
        runs = resolve_map(repository, manifest, table).runs
    needed = table.add_sources(table.used_records(runs))
    entries = table.index_rows(needed)
    block = manifest.block_bytes
    return SnapshotLayout(
        data_bytes=count_run_blocks(runs[runs["slot"] >= FIRST_SLOT]) * block,
        zero_bytes=count_run_blocks(runs[runs["slot"] == ZERO]) * block,
        hole_bytes=count_run_blocks(runs[runs["slot"] == HOLE]) * block,
        extents=len(runs),
        records=len(entries),
        record_bytes=int(table.count_present(needed).sum()) * block,
        payload_bytes=int(entries["payload_bytes"].sum(dtype=np.uint64)),
        packs=len(distinct(entries["pack"])),
        depth=int(table.depths_of(needed).max(initial=0)),
    )


class RepositoryTotals(Struct, frozen=True):
    """Objects and bytes of each kind in a repository, its snapshots by image, and what they add up to."""

    objects: dict[str, int]
    stored_bytes: dict[str, int]
    snapshots: dict[str, int]
    damaged: tuple[DamagedSnapshot, ...]
    """Those whose manifests cannot be read: counted, and in no sum of bytes but `stored_bytes`."""
    apparent_bytes: int
    allocated_bytes: int
    record_count: int
    record_bytes: int

    @property
    def total_bytes(self) -> int:
        """Bytes of all objects."""
        return sum(self.stored_bytes.values())


def inspect_repository(repository: Repository) -> RepositoryTotals:
    """Count all objects of a repository; raises IntegrityError for a damaged index."""
    objects: Counter[str] = Counter()
    stored: Counter[str] = Counter()
    for found in repository.objects.list(""):
        kind = found.name.partition("/")[0]
        objects[kind] += 1
        stored[kind] += found.size_bytes
    snapshots = list(load_snapshots(repository))
    statistics = [each.manifest.statistics for each in snapshots if isinstance(each, Snapshot)]
    entries = load_index(repository).entries
    raw = entries["slots"].astype(np.uint64) << entries["block_shift"].astype(np.uint64)
    return RepositoryTotals(
        objects=dict(objects),
        stored_bytes=dict(stored),
        snapshots=dict(Counter(each.ref.image for each in snapshots)),
        damaged=tuple(each for each in snapshots if isinstance(each, DamagedSnapshot)),
        apparent_bytes=sum(each.apparent_bytes for each in statistics),
        allocated_bytes=sum(each.allocated_bytes for each in statistics),
        record_count=len(entries),
        record_bytes=int(raw.sum()),
    )
