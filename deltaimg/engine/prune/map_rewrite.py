# SPDX-License-Identifier: Apache-2.0
"""Tell the maps of an image where the slots of cut records went.

Always  the new map is durable before the manifest that names it takes the place of the old one, in one step.
Always  a manifest changes only once the new map was resolved, and its root digest found to be the snapshot's.
"""

from __future__ import annotations

from datetime import datetime

import msgspec
import numpy as np

from deltaimg.arrays import FIRST_SLOT, Runs, clip_runs, empty_runs, expand_ranges, runs_from_blocks
from deltaimg.delta.signature import root_digest
from deltaimg.engine.prune.trim import MovedSlots
from deltaimg.errors import DigestMismatch
from deltaimg.format.manifest import Manifest
from deltaimg.format.map import MAPS, parse_map
from deltaimg.kernels import overlay_runs
from deltaimg.model import count_blocks
from deltaimg.repo.chain import encode_map
from deltaimg.repo.lock import ImageLock
from deltaimg.repo.numbering import renumber_runs
from deltaimg.repo.repository import Repository
from deltaimg.repo.slots import SlotTable


class MapRewriter:
    """Rewrites maps after a `Trimmer` has stored all that it moved."""

    def __init__(self, repository: Repository, table: SlotTable, moved: MovedSlots) -> None:
        """Args: table: of the trimmer; the new records are added to it."""
        self._repository, self._table, self._moved = repository, table, moved
        self._first_new = table.slot_count
        if moved.ids:
            ids = np.frombuffer(b"".join(moved.ids), np.uint8).reshape(len(moved.ids), -1)
            table.load_digests(np.empty(0, np.int64))
            digests = np.concatenate([table.digests[: table.slot_count], *moved.digests])
            table.add_new_records(ids, np.array(moved.counts, np.int64), digests)
        self.stored_bytes = 0

    def rewrite(self, image: str, now: datetime, patience_s: float) -> None:
        """Rewrite the maps of one image.

        Raises:
            RepositoryLocked: somebody is at work on it. IntegrityError: a snapshot was added since that needs other records,
            or a proof fails; what is not proven stays as it was.
        """
        with ImageLock(self._repository, image, "prune", now, patience_s=patience_s) as lock:
            manifests = [self._repository.load_manifest(ref) for ref in self._repository.list_snapshots(image)]
            needed = {manifest.base for manifest in manifests if not manifest.map_is_full}
            resolved: dict[str, Runs] = {}
            for manifest in manifests:
                changed, runs = self._rewrite_map(manifest, resolved)
                if manifest.id in needed:
                    resolved[manifest.id] = runs
                if changed is not None:
                    self._repository.replace_manifest(changed, lock.check)

    def _rewrite_map(self, manifest: Manifest, resolved: dict[str, Runs]) -> tuple[Manifest | None, Runs]:
        """Store the new map of a snapshot; return its manifest then, None if it stays, and its resolved map."""
        table, name = self._table, MAPS + manifest.map
        content = parse_map(self._repository.get_object(MAPS, manifest.map), name)
        records = table.add_records(content.record_ids, content.record_slots, name)
        counts = content.record_slots.astype(np.int64)
        own = renumber_runs(content.runs, FIRST_SLOT + np.cumsum(counts) - counts, counts, table.first_slots[records])
        runs = self._translate(own)
        under = empty_runs() if manifest.map_is_full else resolved[str(manifest.base)]
        whole = overlay_runs(clip_runs(under, 0, content.block_count), runs)
        if np.array_equal(runs, overlay_runs(own, empty_runs())):
            return None, whole
        self._prove(manifest, whole)
        block_count = count_blocks(manifest.size_bytes, manifest.block_bytes)
        data, _ = encode_map(table, runs, None, block_count)
        map_name, size_bytes = self._repository.put_object(MAPS, [data])
        self.stored_bytes += size_bytes
        return msgspec.structs.replace(manifest, map=map_name), whole

    def _translate(self, runs: Runs) -> Runs:
        """Return runs with new slots in the place of those that moved."""
        table = self._table
        cut = renumber_runs(runs, table.first_slots, table.slot_counts, table.first_slots)
        is_data = cut["slot"] >= FIRST_SLOT
        data = cut[is_data]
        entries = table.entries[table.records_of(data["slot"])]
        data = data[(entries >= 0) & self._moved.is_cut(np.maximum(entries, 0))]
        counts = data["count"].astype(np.int64)
        slots = expand_ranges(data["slot"].astype(np.int64), counts)
        blocks = expand_ranges(data["first_block"].astype(np.int64), counts).astype(np.uint64)
        records = table.records_of(slots)
        new = self._moved.find(table.entries[records], slots - table.first_slots[records])
        has_moved = new >= 0
        moved = runs_from_blocks(blocks[has_moved], (new[has_moved] + self._first_new).astype(np.uint32))
        return overlay_runs(overlay_runs(runs, empty_runs()), moved)

    def _prove(self, manifest: Manifest, runs: Runs) -> None:
        table = self._table
        used = table.used_records(runs)
        table.load_digests(used[table.entries[used] >= 0])
        found = root_digest(
            self._repository.keys.root,
            runs,
            table.digests,
            size_bytes=manifest.size_bytes,
            block_bytes=manifest.block_bytes,
        )
        if found != manifest.root_digest_bytes:
            expected = manifest.root_digest_bytes
            raise DigestMismatch(manifest.object_name, 0, "the root of its digests after a trim", expected, found)
