# SPDX-License-Identifier: Apache-2.0
"""What tonight's image is compared with: the newest snapshot of the image, resolved and proven, and content of others.

A base that cannot be used costs a warning and a full map, never the night's backup.
"""

from __future__ import annotations

import numpy as np

from deltaimg.engine.content.resolved import Resolved, load_resolved
from deltaimg.engine.progress import Progress
from deltaimg.errors import IntegrityError, ObjectNotFound, SnapshotError
from deltaimg.format.manifest import Manifest
from deltaimg.format.pack import pack_name
from deltaimg.repo.index import load_index
from deltaimg.repo.repository import Repository
from deltaimg.repo.slots import SlotTable

BYTES_A_KNOWN_BLOCK = 26
"""Digest, a share of the hash table and of the record it is in."""


def find_base(
    repository: Repository, image: str, progress: Progress
) -> tuple[SlotTable, Manifest | None, Resolved | None]:
    """Return the slots in view, the newest manifest of `image` that can be read, and that snapshot if it can be a base."""
    table = SlotTable(repository, load_index(repository))
    for error in table.index.damage:
        progress.warn(f"{error}; what only it knows of is stored again where it is met")
    for ref in reversed(repository.list_snapshots(image)):
        try:
            manifest = repository.load_manifest(ref)
        except (IntegrityError, ObjectNotFound) as error:
            progress.warn(f"{error}; trying the snapshot before it")
            continue
        try:
            resolved = load_resolved(repository, manifest, table)
            _check_packs(table, resolved)
            return table, manifest, resolved
        except (IntegrityError, ObjectNotFound, SnapshotError) as error:
            progress.warn(f"{ref.label} cannot be a base: {error}; this snapshot gets a full map")
            return SlotTable(repository, table.index), manifest, None
    return table, None, None


def _check_packs(table: SlotTable, resolved: Resolved) -> None:
    """Raise ObjectNotFound where the content of a base is not there any more: what is unchanged is then stored again."""
    entries = table.entries[table.used_records(resolved.map.runs)]
    entries = entries[table.index.is_lost[entries]]
    if len(entries):
        missing = np.flatnonzero(table.index.is_missing)
        raise ObjectNotFound(pack_name(table.index.packs[int(table.index.entries["pack"][missing[0]])]))


def load_other_content(table: SlotTable, block_bytes: int, budget_bytes: int, progress: Progress) -> None:
    """Bring the digests of other records of the repository into view, the newest first, as far as the budget goes.

    These are what other images store, and what an interrupted run left behind.
    """
    allowed = budget_bytes // BYTES_A_KNOWN_BLOCK - table.slot_count
    entries = table.index.entries
    is_usable = (entries["block_shift"] == block_bytes.bit_length() - 1) & (table.index.links.depths >= 0)
    is_usable &= ~(table.index.is_pending | table.index.is_lost)
    numbers = np.flatnonzero(is_usable)[::-1]
    numbers = numbers[np.cumsum(entries["slots"][numbers], dtype=np.int64) <= allowed]
    if len(numbers):
        records = table.add_entries(numbers)
        table.load_digests(
            records, lambda error: progress.warn(f"{error}; its content is stored again where it is met")
        )
