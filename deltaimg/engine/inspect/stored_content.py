# SPDX-License-Identifier: Apache-2.0
"""What a backup stored: how the blocks changed since the base, with what encoding, and in which parts of the image.

From maps and index only. Records that were indexed since the run began are its own.
"""

from __future__ import annotations

import numpy as np
from msgspec import Struct

from deltaimg.arrays import FIRST_SLOT, Runs, count_run_blocks, empty_runs, expand_ranges
from deltaimg.codec.registry import find_decoder
from deltaimg.delta.registry import find_delta_decoder
from deltaimg.engine.content.slot_lookup import SlotLookup
from deltaimg.errors import DeltaimgError
from deltaimg.format.manifest import Manifest
from deltaimg.ids import RecordNumbers, SlotNumbers
from deltaimg.kernels import overlay_runs, subtract_runs
from deltaimg.model import MIB
from deltaimg.repo.index import LoadedIndex
from deltaimg.repo.layers import resolve_map
from deltaimg.repo.repository import Repository, SnapshotRef
from deltaimg.repo.slots import SlotTable
from deltaimg.repo.snapshots import expect_snapshot

_REGIONS = 256
_PIECE_RECORDS = 4096


class StoredKind(Struct, frozen=True):
    """The records of one encoding that a snapshot stored."""

    name: str
    """As in `delta, zstd`, or `literal, none` for what does not compress."""
    is_delta: bool
    records: int
    content_bytes: int
    payload_bytes: int


class Contributor(Struct, frozen=True):
    """Part of the image, [start, end) in bytes, and what new content there took."""

    start: int
    end: int
    content_bytes: int
    payload_bytes: int


class StoredContent(Struct, frozen=True):
    """How the blocks of an image changed since its base; bytes of whole blocks. Without a base, it was empty before."""

    same_bytes: int
    zero_bytes: int
    """That were data and are zeros now."""
    referenced_bytes: int
    """Changed, and found in records of before or stored already in the same run."""
    rewritten_bytes: int
    """Unchanged, and stored again."""
    stored: tuple[StoredKind, ...]
    contributors: tuple[Contributor, ...]
    """Those with the most payload first."""

    @property
    def new_bytes(self) -> int:
        """Bytes of new content that the backup stored."""
        return sum(kind.content_bytes for kind in self.stored) - self.rewritten_bytes

    @property
    def payload_bytes(self) -> int:
        """Bytes that this content takes in packs."""
        return sum(kind.payload_bytes for kind in self.stored)


def find_stored_content(repository: Repository, manifest: Manifest, index: LoadedIndex) -> StoredContent | None:
    """Return what a snapshot stored and why; None where that is not known: its base is forgotten, or a clock was set back.

    Raises:
        SnapshotError, IntegrityError, StoreError: the snapshot cannot be read.
    """
    table = SlotTable(repository, index)
    with expect_snapshot(repository, SnapshotRef.of(manifest)):
        resolved = resolve_map(repository, manifest, table)
        base_runs = _find_base_runs(repository, manifest, table)
    if base_runs is None:
        return None
    runs, block = resolved.runs, manifest.block_bytes
    changed = subtract_runs(runs[runs["slot"] >= FIRST_SLOT], base_runs)
    cleared = overlay_runs(base_runs, runs[runs["slot"] < FIRST_SLOT])
    cleared_blocks = _count_data(base_runs) - _count_data(cleared)
    used = table.used_records(changed)
    own = used[table.entries[used] >= table.index.first_entry_since(manifest.started_us)]
    done = manifest.statistics
    if int(table.slot_counts[own].sum()) * block != done.new_bytes + done.rewritten_bytes:
        return None
    return StoredContent(
        same_bytes=max(0, resolved.block_count * block - done.changed_bytes),
        zero_bytes=cleared_blocks * block,
        referenced_bytes=max(0, done.changed_bytes - cleared_blocks * block - done.new_bytes),
        rewritten_bytes=done.rewritten_bytes,
        stored=_sum_kinds(table, own, block),
        contributors=_find_contributors(table, own, runs, manifest),
    )


def _find_base_runs(repository: Repository, manifest: Manifest, table: SlotTable) -> Runs | None:
    """Return the map of the base, None if that is forgotten or cannot be read."""
    if manifest.base is None:
        return empty_runs()
    try:
        base = next(ref for ref in repository.list_snapshots(manifest.image) if ref.id == manifest.base)
        return resolve_map(repository, repository.load_manifest(base), table).runs
    except (StopIteration, DeltaimgError):
        return None


def _sum_kinds(table: SlotTable, records: RecordNumbers, block_bytes: int) -> tuple[StoredKind, ...]:
    """Return the kinds of `records`, those with the most payload first."""
    entries, is_delta = table.index_rows(records), table.are_deltas(records)
    kinds = []
    for delta, encoding in sorted(set(zip(is_delta.tolist(), entries["encoding"].tolist(), strict=True))):
        codec = find_delta_decoder(encoding) if delta else find_decoder(encoding)
        chosen = entries[(is_delta == delta) & (entries["encoding"] == encoding)]
        kinds.append(
            StoredKind(
                name=f"{'delta' if delta else 'literal'}, {codec.name if codec else f'encoding {encoding}'}",
                is_delta=delta,
                records=len(chosen),
                content_bytes=int(chosen["slots"].sum(dtype=np.uint64)) * block_bytes,
                payload_bytes=int(chosen["payload_bytes"].sum(dtype=np.uint64)),
            )
        )
    return tuple(sorted(kinds, key=lambda kind: -kind.payload_bytes))


def _find_contributors(
    table: SlotTable, records: RecordNumbers, runs: Runs, manifest: Manifest
) -> tuple[Contributor, ...]:
    """Share each record's payload out over the places of its blocks, and sum that by regions of the image."""
    size, block = manifest.size_bytes, manifest.block_bytes
    region_bytes = max(MIB, block, 1 << max(0, (size - 1) // _REGIONS).bit_length())
    blocks = np.zeros(-(-size // region_bytes), np.int64)
    payload = np.zeros(len(blocks), np.float64)
    places = SlotLookup(runs)
    for first in range(0, len(records), _PIECE_RECORDS):
        piece = records[first : first + _PIECE_RECORDS]
        counts = table.slot_counts[piece]
        at = places.find(SlotNumbers(expand_ranges(table.first_slots[piece], counts)))
        of_slot = np.repeat(table.index_rows(piece)["payload_bytes"] / counts, counts)
        regions = at[at >= 0] * block // region_bytes
        blocks += np.bincount(regions, minlength=len(blocks))
        payload += np.bincount(regions, weights=of_slot[at >= 0], minlength=len(blocks))
    order = [region for region in np.argsort(-payload, kind="stable").tolist() if blocks[region]]
    return tuple(
        Contributor(
            start=region * region_bytes,
            end=min((region + 1) * region_bytes, size),
            content_bytes=int(blocks[region]) * block,
            payload_bytes=round(payload[region]),
        )
        for region in order
    )


def _count_data(runs: Runs) -> int:
    return count_run_blocks(runs[runs["slot"] >= FIRST_SLOT])
