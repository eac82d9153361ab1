# SPDX-License-Identifier: Apache-2.0
"""Open the base: the newest snapshot of the image, resolved and verified; and load other content of the repository.

A base that cannot be used costs a warning and a full map, never the backup.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np
from msgspec import Struct

from deltaimg.arrays import Runs, empty_runs
from deltaimg.engine.content.resolved import Resolved, load_resolved
from deltaimg.engine.progress import Progress
from deltaimg.errors import IntegrityError, ObjectNotFound, OnlyWrites, SnapshotError, UsageError
from deltaimg.format.manifest import Manifest
from deltaimg.format.pack import pack_name
from deltaimg.ids import EntryNumbers
from deltaimg.model import DEFAULT_BLOCK_BYTES
from deltaimg.repo.index import load_index
from deltaimg.repo.repository import Repository, SnapshotRef
from deltaimg.repo.slots import SlotTable

BYTES_A_KNOWN_BLOCK = 26
"""Its digest, and a share of the hash table and of its record's entries."""


class Base(Struct, frozen=True):
    """What an image is compared with."""

    table: SlotTable
    """The slots of the base, and of what else is loaded later."""
    newest: Manifest | None
    """The newest snapshot of the image whose manifest can be read."""
    resolved: Resolved | None
    """That snapshot, if it can be a base."""
    newest_at: datetime | None = None
    """The time of the newest snapshot of the image, whether it can be read or not."""

    @property
    def is_usable(self) -> bool:
        """Whether there is a snapshot that can be the base."""
        return self.resolved is not None

    @property
    def manifest(self) -> Manifest | None:
        """Of the snapshot that is the base."""
        return self.resolved.manifest if self.resolved else None

    @property
    def runs(self) -> Runs:
        """The base's map, empty without a base."""
        return self.resolved.map.runs if self.resolved else empty_runs()


def choose_block_bytes(newest: Manifest | None, image: str, wanted: int | None) -> int:
    """Return the block size of the image's snapshots, or of the first one; raises UsageError if another was asked for."""
    if newest is None:
        return wanted or DEFAULT_BLOCK_BYTES
    if wanted not in (None, newest.block_bytes):
        raise UsageError(
            f"image '{image}' has blocks of {newest.block_bytes} bytes since its first snapshot, not {wanted}",
            hint="leave --block-size out, or back up under another image name",
        )
    return newest.block_bytes


def open_base(repository: Repository, refs: Sequence[SnapshotRef], progress: Progress) -> Base:
    """Load the index, and the newest of the snapshots of an image, which are given oldest first, that can be read."""
    table = SlotTable(repository, load_index(repository))
    for error in table.index.damage:
        progress.warn(f"{error}; content that only it lists is stored again")
    newest_at = refs[-1].taken_at if refs else None
    for ref in reversed(refs):
        try:
            manifest = repository.load_manifest(ref)
        except OnlyWrites:
            continue  # another host's
        except (IntegrityError, ObjectNotFound) as error:
            progress.warn(f"{error}; trying the snapshot before it")
            continue
        try:
            resolved = load_resolved(repository, manifest, table)
            _check_packs(table, resolved)
            return Base(table, manifest, resolved, newest_at)
        except (IntegrityError, ObjectNotFound, SnapshotError) as error:
            progress.warn(f"{ref.label} cannot be a base: {error}; this snapshot gets a full map")
            return Base(SlotTable(repository, table.index), manifest, None, newest_at)
    return Base(table, None, None, newest_at)


def _check_packs(table: SlotTable, resolved: Resolved) -> None:
    """Raise ObjectNotFound if content of a base is missing: unchanged blocks are then stored again."""
    entries = table.entries[table.used_records(resolved.map.runs)]
    entries = entries[table.index.is_lost[entries]]
    if len(entries):
        missing = np.flatnonzero(table.index.is_missing)
        raise ObjectNotFound(pack_name(table.index.packs[int(table.index.entries["pack"][missing[0]])]))


def load_other_content(
    table: SlotTable, block_bytes: int, budget_bytes: int, progress: Progress, *, only_own: bool = False
) -> None:
    """Load the digests of other records of the repository, the newest first, within a budget.

    These are of other images, of earlier snapshots, and of interrupted backups.

    Args:
        only_own: this is a write-only host. Others leave out what such hosts stored: that its records hold what they are said
            to hold was not verified.
    """
    allowed = budget_bytes // BYTES_A_KNOWN_BLOCK - table.slot_count
    entries = table.index.entries
    is_usable = (entries["block_shift"] == block_bytes.bit_length() - 1) & (table.index.links.depths >= 0)
    is_usable &= ~(table.index.is_pending | table.index.is_lost)
    if not only_own:
        is_usable &= ~table.index.is_by_host
    numbers = np.flatnonzero(is_usable)[::-1]
    numbers = numbers[np.cumsum(entries["slots"][numbers], dtype=np.int64) <= allowed]
    if len(numbers):
        records = table.add_entries(EntryNumbers(numbers))
        table.load_digests(records, lambda error: progress.warn(f"{error}; content of its records is stored again"))
