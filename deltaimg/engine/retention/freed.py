# SPDX-License-Identifier: Apache-2.0
"""How many bytes of records each snapshot to be forgotten sets free, told from metadata only.

The snapshots of a plan go oldest first, one image after another, and each is charged with what nothing that is left needs once
it is gone, too. So what several of them share falls to the last of these, and the sums are what all of them free together.
Records count as the index has them; maps, manifests and what is free already do not.

Memory  the index (44 bytes a record), 20 bytes a record, and a resolved map or two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import Runs
from deltaimg.errors import IntegrityError
from deltaimg.format.manifest import Manifest
from deltaimg.model import count_blocks
from deltaimg.repo.chain import ResolvedMap, lay_map
from deltaimg.repo.index import Index, load_index
from deltaimg.repo.lineage import walk_chains
from deltaimg.repo.numbering import MapNumbers
from deltaimg.repo.repository import Repository
from deltaimg.repo.retention import ForgetPlan

_STAYS = 2**31 - 1
_UNUSED = -1


def count_freed(repository: Repository, plans: Sequence[ForgetPlan]) -> dict[str, int]:
    """Return the bytes that each forgotten snapshot of `plans` sets free, by id.

    Raises:
        SnapshotError, IntegrityError: what some snapshot of the repository needs cannot be told.
    """
    forgotten = [each.id for plan in plans for each in plan.forgotten]
    turns = {snapshot: turn for turn, snapshot in enumerate(forgotten)}
    index = load_index(repository)
    last_use = np.full(len(index), _UNUSED, np.int32)
    for image in sorted({ref.image for ref in repository.list_snapshots()}):
        _note_image(repository, image, index, turns, last_use)
    _note_sources(index, last_use)
    is_freed = (last_use >= 0) & (last_use < _STAYS)
    payloads = index.entries["payload_bytes"][is_freed].astype(np.float64)
    sums = np.bincount(last_use[is_freed], weights=payloads, minlength=len(forgotten))
    return {snapshot: int(sums[turn]) for snapshot, turn in turns.items()}


def _note_image(
    repository: Repository, image: str, index: Index, turns: Mapping[str, int], last_use: npt.NDArray[np.int32]
) -> None:
    """Raise the last use of each record that snapshots of an image refer to."""
    snapshots: dict[str, Manifest] = {}
    for manifest in repository.load_manifests(image):
        if isinstance(manifest, IntegrityError):
            raise manifest
        snapshots[manifest.id] = manifest
    numbers = MapNumbers()
    uses = np.empty(0, np.int32)

    def visit(manifest: Manifest, own_runs: Runs, map_bytes: int, below: ResolvedMap | None) -> ResolvedMap:
        nonlocal uses
        block_count = count_blocks(manifest.size_bytes, manifest.block_bytes)
        resolved = lay_map(below, own_runs, block_count, map_bytes, is_full=manifest.map_is_full)
        uses = np.concatenate((uses, np.full(numbers.record_count - len(uses), _UNUSED, np.int32)))
        used = numbers.used_records(resolved.runs)
        uses[used] = np.maximum(uses[used], turns.get(manifest.id, _STAYS))
        return resolved

    walk_chains(repository, snapshots, snapshots.values(), numbers, visit)
    entries = index.find(numbers.record_ids)
    np.maximum.at(last_use, entries[entries >= 0], uses[entries >= 0])


def _note_sources(index: Index, last_use: npt.NDArray[np.int32]) -> None:
    """Raise the last use of what delta records are encoded against to that of the records themselves."""
    links = index.links
    for depth in range(int(links.depths.max(initial=0)), 0, -1):
        entries = np.flatnonzero((links.depths == depth) & (last_use >= 0))
        sources = links.entries[links.of(entries)]
        np.maximum.at(last_use, sources, np.repeat(last_use[entries], links.counts[entries]))
