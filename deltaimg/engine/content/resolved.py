# SPDX-License-Identifier: Apache-2.0
"""A snapshot resolved: its maps overlaid, the digests of its blocks loaded and compared with its root digest."""

from __future__ import annotations

from msgspec import Struct

from deltaimg.delta.signature import root_digest
from deltaimg.errors import DigestMismatch
from deltaimg.format.manifest import Manifest
from deltaimg.repo.layers import ResolvedMap, resolve_map
from deltaimg.repo.repository import Repository, SnapshotRef
from deltaimg.repo.slots import SlotTable
from deltaimg.repo.snapshots import expect_snapshot


class Resolved(Struct, frozen=True):
    """A snapshot whose every block has a slot, and every slot a digest."""

    manifest: Manifest
    map: ResolvedMap


def load_resolved(repository: Repository, manifest: Manifest, table: SlotTable) -> Resolved:
    """Overlay a snapshot's map layers, load the digests of its blocks, and compare them with its root digest.

    The records that its records are encoded against are numbered as well, without their digests.

    Raises:
        SnapshotError, IntegrityError, ObjectNotFound: something that it needs is missing or damaged.
    """
    with expect_snapshot(repository, SnapshotRef.of(manifest)):
        resolved = resolve_map(repository, manifest, table)
        records = table.used_records(resolved.runs)
        table.load_digests(records)
        table.add_sources(records)
        found = root_digest(
            repository.keys.root,
            resolved.runs,
            table.digests,
            size_bytes=manifest.size_bytes,
            block_bytes=manifest.block_bytes,
        )
    if found != manifest.root_digest_bytes:
        raise DigestMismatch(manifest.object_name, 0, "the root of its digests", manifest.root_digest_bytes, found)
    return Resolved(manifest, resolved)
